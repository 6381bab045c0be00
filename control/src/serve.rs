//! Runs the process: starts its tasks in the order in which they may be needed, tells the service
//! manager, and waits for the end.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rtpbridge_shared::service_manager;
use sd_notify::NotifyState;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::time::{interval, sleep, timeout};
use tower::ServiceExt;
use tracing::{debug, info, warn};

use crate::admin;
use crate::api;
use crate::app::{App, Startup};
use crate::dataplane::link;
use crate::dataplane::pending::Phase;
use crate::fetch::cache;
use crate::listeners::Listeners;
use crate::operator::Operator;
use crate::session::{orphan, progress};
use crate::shutdown::{self, Command};
use crate::takeover;

/// Clients of a predecessor come back at once; they should find their sessions.
const FIRST_SYNC_PATIENCE: Duration = Duration::from_millis(700);
const STATUS_INTERVAL: Duration = Duration::from_secs(5);
const ADMIN_HEAD_PATIENCE: Duration = Duration::from_secs(5);
/// How long a successor may take until it serves.
const SUCCESSOR_PATIENCE: Duration = Duration::from_secs(30);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Runs until the process has to end; returns its exit code.
///
/// # Errors
/// When the sockets or the signal handlers cannot be used.
pub async fn run(startup: Startup, listeners: Listeners) -> io::Result<u8> {
    let Listeners {
        control,
        admin,
        heir,
    } = listeners;
    let app = App::new(startup);
    let passable = Arc::new(Passable {
        control: control
            .iter()
            .map(|listener| listener.as_fd().try_clone_to_owned())
            .collect::<io::Result<_>>()?,
        admin: admin.as_fd().try_clone_to_owned()?,
    });
    app.cache.take_stock(!app.takes_over);
    tokio::spawn(link::run(Arc::clone(&app)));
    tokio::spawn(orphan::run(Arc::clone(&app)));
    tokio::spawn(progress::run(Arc::clone(&app)));
    tokio::spawn(cache::run(Arc::clone(&app)));
    let mut phase = app.link.watch_phase();
    // Without a dataplane there is still a control address that says so.
    let _ = timeout(
        FIRST_SYNC_PATIENCE,
        phase.wait_for(|phase| *phase == Phase::Up),
    )
    .await;
    for listener in control {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        info!(address = %listener.local_addr()?, "listening");
        tokio::spawn(api::serve(Arc::clone(&app), listener));
    }
    admin.set_nonblocking(true)?;
    let admin = UnixListener::from_std(admin)?;
    tokio::spawn(serve_admin(Arc::clone(&app), admin, passable));
    if let Some(heir) = heir {
        heir.announce();
    }
    tell_ready();
    tokio::spawn(report_status(Arc::clone(&app)));
    tokio::spawn(feed_watchdog());
    let code = shutdown::run(&app).await?;
    tell(NotifyState::Stopping);
    Ok(code)
}

/// The listeners once more, for a successor.
struct Passable {
    control: Vec<OwnedFd>,
    admin: OwnedFd,
}

/// Until the process leaves; then the listeners are dropped, for a successor or for good.
async fn serve_admin(app: Arc<App>, listener: UnixListener, passable: Arc<Passable>) {
    tokio::select! {
        () = accept_admin(&app, listener, passable) => {}
        () = app.lifecycle.leaving() => {}
    }
}

async fn accept_admin(app: &Arc<App>, listener: UnixListener, passable: Arc<Passable>) {
    let router = admin::router(Operator::new(Arc::clone(app)));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "accepting on the admin socket failed");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let app = Arc::clone(app);
        let router = router.clone();
        let passable = Arc::clone(&passable);
        tokio::spawn(async move {
            let _guest = app.lifecycle.admit_admin();
            let service = service_fn(|request| {
                answer_admin(
                    Arc::clone(&app),
                    router.clone(),
                    Arc::clone(&passable),
                    request,
                )
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(ADMIN_HEAD_PATIENCE)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            let mut connection = pin!(connection);
            let outcome = tokio::select! {
                outcome = connection.as_mut() => outcome,
                () = app.lifecycle.leaving() => {
                    // What was asked, the handover itself perhaps, is still answered.
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = outcome {
                debug!(%error, "admin connection ended");
            }
        });
    }
}

async fn answer_admin(
    app: Arc<App>,
    router: Router,
    passable: Arc<Passable>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let upgrade = request.headers().get(header::UPGRADE);
    let wants_sockets = request.method() == Method::POST
        && request.uri().path() == takeover::PATH
        && upgrade.is_some_and(|value| value == takeover::PROTOCOL);
    if !wants_sockets {
        return router.oneshot(request.map(Body::new)).await;
    }
    info!("another control process asks to take over");
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let outcome = hand_to_successor(upgrade, passable).await;
        match outcome {
            Ok(()) => app.lifecycle.command(Command::Displaced),
            Err(error) => warn!(%error, "take-over failed, going on"),
        }
    });
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(
        header::UPGRADE,
        HeaderValue::from_static(takeover::PROTOCOL),
    );
    Ok(answer)
}

async fn hand_to_successor(
    upgrade: hyper::upgrade::OnUpgrade,
    passable: Arc<Passable>,
) -> io::Result<()> {
    let upgraded = upgrade.await.map_err(io::Error::other)?;
    let parts = upgraded
        .downcast::<TokioIo<UnixStream>>()
        .map_err(|_| io::Error::other("not a Unix socket"))?;
    let stream = parts.io.into_inner().into_std()?;
    let passed = tokio::task::spawn_blocking(move || {
        let control: Vec<_> = passable.control.iter().map(OwnedFd::as_fd).collect();
        takeover::give(stream, &control, passable.admin.as_fd(), SUCCESSOR_PATIENCE)
    });
    passed.await.map_err(io::Error::other)?
}

async fn report_status(app: Arc<App>) {
    let mut ticks = interval(STATUS_INTERVAL);
    loop {
        ticks.tick().await;
        let sessions = app.registry.population();
        let connections = app.connections.count();
        let dataplane = if app.link.is_up() { "up" } else { "down" };
        let mode = if app.lifecycle.is_draining() {
            ", draining"
        } else {
            ""
        };
        let text =
            format!("{sessions} sessions, {connections} connections, dataplane {dataplane}{mode}");
        tell(NotifyState::Status(&text));
    }
}

/// A runtime that does not get to this does not serve clients either.
async fn feed_watchdog() {
    let Some(period) = sd_notify::watchdog_enabled() else {
        return;
    };
    let mut ticks = interval(period / 2);
    loop {
        ticks.tick().await;
        tell(NotifyState::Watchdog);
    }
}

fn tell_ready() {
    if let Err(error) = service_manager::tell_ready() {
        warn!(%error, "cannot tell the service manager");
    }
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = service_manager::tell(state) {
        debug!(%error, "the service manager could not be told");
    }
}
