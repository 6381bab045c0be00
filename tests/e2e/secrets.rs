//! Keys, passwords and tokens: whatever the level of the log, they are in no line of it, in no answer
//! but the descriptions that carry them, and in nothing that the operator or Prometheus is shown.

use std::fs;

use rtpbridge_tests::harness::wait::{SOON, eventually};
use rtpbridge_tests::harness::{Client, Server, http};
use rtpbridge_tests::peer::sdes::Crypto;
use rtpbridge_tests::peer::{DtlsParty, Offer, Party};
use serde_json::{Value, json};

const TOKEN: &str = "correct-horse-battery-staple";
const HEADER: (&str, &str) = ("Authorization", "Bearer correct-horse-battery-staple");

/// What stands in descriptions and nowhere else.
#[derive(Default)]
struct Secrets(Vec<String>);

impl Secrets {
    fn learn(&mut self, sdp: &str) {
        let before = self.0.len();
        for line in sdp.lines() {
            if let Some(password) = line.strip_prefix("a=ice-pwd:") {
                self.0.push(password.to_owned());
            } else if let Some((_, key)) = line.split_once(" inline:") {
                let key = key.split(['|', ' ']).next().unwrap();
                self.0.push(key.to_owned());
            }
        }
        assert!(self.0.len() > before, "no secret in {sdp}");
    }

    fn assert_absent(&self, place: &str, text: &str) {
        for secret in &self.0 {
            if let Some(at) = text.find(secret.as_str()) {
                let around = text[..at].lines().last().unwrap_or("");
                panic!("a secret is in {place}, after {around:?}");
            }
        }
    }
}

/// A call with SRTP and a browser's kind of endpoint, with everything that makes new keys.
fn call_with_keys(client: &mut Client, secrets: &mut Secrets) {
    let mut secured = Party::bind();
    let own = Crypto::random("AES_CM_128_HMAC_SHA1_80");
    let mut offer = Offer::pcmu(secured.address()).attribute(&own.attribute(1));
    "RTP/SAVP".clone_into(&mut offer.transport);
    secrets.learn(&offer.write());
    let created = client.call("endpoint.create_from_offer", json!({"sdp": offer.write()}));
    secrets.learn(created["sdp_answer"].as_str().unwrap());
    let id = json!({"endpoint_id": created["endpoint_id"]});
    let rekeyed = client.call("endpoint.srtp_rekey", id);
    secrets.learn(rekeyed["sdp"].as_str().unwrap());
    // Not protected: counted, and perhaps told of.
    secured.take_description(created["sdp_answer"].as_str().unwrap());
    secured.talk(3);

    let mut browser = DtlsParty::bind();
    secrets.learn(&browser.offer());
    let answer = browser.offer_into(client);
    secrets.learn(&answer);
    browser.connect(&answer).unwrap();
    let id = json!({"endpoint_id": browser.endpoint});
    let restart = client.call("endpoint.ice_restart", id.clone());
    secrets.learn(restart["sdp_offer"].as_str().unwrap());
    // Both are refused, with a word about why.
    let stale =
        json!({"endpoint_id": browser.endpoint, "sdp": browser.offer(), "offer_generation": 77});
    client.refuse("endpoint.accept_answer", stale, "ENDPOINT_ERROR");
    let broken = browser
        .offer()
        .replace("a=setup:active", "a=setup:active\r\na=ice-lite");
    client.refuse(
        "endpoint.create_from_offer",
        json!({"sdp": broken}),
        "ENDPOINT_ERROR",
    );
    let offered = client.call("endpoint.create_offer", json!({"type": "webrtc"}));
    secrets.learn(offered["sdp_offer"].as_str().unwrap());
    client.call("endpoint.remove", id);
}

#[test]
fn no_key_password_or_token_is_logged_or_shown_at_any_level() {
    let directory = tempfile::tempdir().unwrap();
    let token_file = directory.path().join("token");
    fs::write(&token_file, TOKEN).unwrap();
    let server = Server::builder()
        .set_text("log_level", "trace")
        .set_text("auth_token_file", token_file.to_string_lossy())
        .start();
    let mut secrets = Secrets(vec![TOKEN.to_owned()]);
    let mut client = Client::try_connect(server.address(), "/", &[HEADER]).unwrap();
    let session = client.call("session.create", json!({}));
    let session = session["session_id"].as_str().unwrap().to_owned();
    call_with_keys(&mut client, &mut secrets);

    let shown: Vec<(&str, Value)> = ["session.info", "stats.snapshot"]
        .map(|method| (method, client.call(method, json!({}))))
        .into();
    for (method, answer) in shown {
        secrets.assert_absent(method, &answer.to_string());
    }
    for path in ["/sessions", "/metrics"] {
        let answer = http::request(server.address(), "GET", path, &[HEADER]);
        assert_eq!(answer.status, 200);
        secrets.assert_absent(path, &answer.text());
    }
    for words in [
        &["session", &session][..],
        &["stats", &session],
        &["--json", "status"],
    ] {
        let output = server.ctl(words);
        assert!(output.status.success(), "{output:?}");
        secrets.assert_absent(words[0], &String::from_utf8_lossy(&output.stdout));
    }
    client.call("session.destroy", json!({}));
    eventually("it says what it does", SOON, || {
        let logs = server.logs();
        logs.contains("DEBUG rtpbridge_dataplane").then_some(())
    });
    secrets.assert_absent("the logs", &server.logs());
}
