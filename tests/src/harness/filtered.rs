//! Starts programs under the system call filter of their unit, as a service manager does, except
//! that what is not allowed is deadly: nothing can go wrong unseen.

use std::collections::BTreeSet;
use std::thread;

use seccompiler::{BpfProgram, TargetArch, apply_filter, compile_from_json};
use serde_json::{Value, json};

const NAME: &str = "unit";

/// Does `start` on a thread under the filter, which what is started inherits and cannot shake off.
pub fn under_filter<T: Send>(allowed: &BTreeSet<String>, start: impl FnOnce() -> T + Send) -> T {
    let known = allowed.iter().map(String::as_str);
    // systemd names calls of other architectures too, and of kernels to come.
    let known = known.filter(|name| compile(&[name]).is_some());
    let filter = compile(&known.collect::<Vec<_>>()).expect("a filter");
    thread::scope(|scope| {
        let started = scope.spawn(|| {
            apply_filter(&filter).expect("is taken");
            start()
        });
        started.join().expect("starts")
    })
}

fn compile(names: &[&str]) -> Option<BpfProgram> {
    let rules: Vec<Value> = names.iter().map(|name| json!({"syscall": name})).collect();
    let filters = json!({NAME: {
        "mismatch_action": "kill_process", "match_action": "allow", "filter": rules,
    }});
    let text = filters.to_string();
    let compiled = compile_from_json(text.as_bytes(), TargetArch::x86_64);
    compiled.ok()?.remove(NAME)
}
