//! Asks now and then how far recordings have come, so that `recording.stopped` says something true
//! of a recording whose dataplane is lost. One task for all of them; what nobody records is not asked
//! about.

use std::sync::Arc;
use std::time::Duration;

use rtpbridge_shared::ipc::{Reply, Request};
use tokio::time::sleep;

use crate::app::App;

/// How old the numbers become, about.
const ROUND: Duration = Duration::from_secs(5);
/// Portions of a round, so that many sessions are not all asked about at once.
const PORTIONS: u32 = 50;

/// Runs until the process ends.
pub async fn run(app: Arc<App>) {
    loop {
        let recorded = app.registry.recorded();
        let portion = recorded.len().div_ceil(PORTIONS as usize).max(1);
        let mut portions = recorded.chunks(portion);
        for _ in 0..PORTIONS {
            sleep(ROUND / PORTIONS).await;
            for session in portions.next().unwrap_or_default().iter().copied() {
                let owner = Arc::clone(&app);
                app.link.submit(
                    Request::SessionInfo { session },
                    Box::new(move |outcome| {
                        // Whatever else came of it, the numbers are those known before.
                        if let Ok(Reply::Session(details)) = outcome {
                            owner.registry.recordings_seen(session, &details.recordings);
                        }
                    }),
                );
            }
        }
    }
}
