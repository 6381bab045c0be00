//! Ends sessions whose time without a connection is over. One task for all of them.

use std::sync::Arc;
use std::time::Duration;

use rtpbridge_shared::id::SessionId;
use rtpbridge_shared::ipc::{Reply, Request, RequestError};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::app::App;
use crate::dataplane::pending::LinkError;

const RETRY: Duration = Duration::from_secs(5);

/// Runs until the process ends.
pub async fn run(app: Arc<App>) {
    loop {
        let changed = app.registry.deadline_changed();
        match app.registry.next_deadline() {
            Some(deadline) => {
                tokio::select! {
                    () = sleep_until(deadline) => {}
                    () = changed => {}
                }
            }
            None => changed.await,
        }
        for session in app.registry.take_expired(Instant::now()) {
            info!(%session, "nobody attached in time, the session ends");
            destroy(&app, session);
        }
    }
}

/// Asks the dataplane to end a session that is in its end in the registry. A connection that held
/// it hears of the recordings this stops, then its farewell. Tried again until the session is gone.
pub fn destroy(app: &Arc<App>, session: SessionId) {
    let owner = Arc::clone(app);
    app.link.submit(
        Request::SessionDestroy { session },
        Box::new(move |outcome| match outcome {
            Ok(Reply::Recordings(recordings)) => {
                for late in recordings.iter().filter(|recording| !recording.flushed) {
                    warn!(%session, path = late.file_path, "recording was not flushed in time");
                }
                owner.registry.report_recordings(session, recordings);
                owner.cache.session_ended(session);
                owner.registry.finish_end(session);
            }
            Ok(_) | Err(LinkError::Refused(RequestError::SessionNotFound)) => {
                owner.cache.session_ended(session);
                owner.registry.finish_end(session);
            }
            // It ends by itself and will say so. After a loss of the link, the next snapshot tells.
            Err(LinkError::Refused(RequestError::SessionGone) | LinkError::Unavailable) => {
                owner.registry.retry_end(session, RETRY);
            }
            Err(LinkError::Refused(error)) => {
                warn!(%session, %error, "session could not be ended, trying again");
                owner.registry.retry_end(session, RETRY);
            }
        }),
    );
}
