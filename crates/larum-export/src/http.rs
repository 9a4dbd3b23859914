//! The HTTP endpoint: an accept loop of our own with a cap on connections and time limits. Nothing on it changes state.

use std::convert::Infallible;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ACCEPT_ENCODING, ALLOW, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, VARY};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::format::{Format, takes_gzip};

/// Most connections at a time; more wait in the listener's backlog.
const CONNECTIONS_MAX: usize = 256;
/// Time for a request's head to arrive, and for an idle connection to send another.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a whole connection: slow readers are cut off, scrapers connect again.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(120);

/// Scrapes that are written at a time.
static SCRAPES: Semaphore = Semaphore::const_new(1);

const PLAIN: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const INDEX: &str = "<!doctype html><html lang=\"en\"><title>Larum</title><h1>Larum</h1><ul>\
<li><a href=\"/metrics\">metrics</a><li><a href=\"/-/healthy\">healthy</a><li><a href=\"/-/ready\">ready</a></ul></html>";

/// What the endpoint shows.
pub trait Pages: Send + Sync + 'static {
    /// One scrape.
    fn metrics(&self, format: Format) -> Vec<u8>;
    /// `Err` says in plain words why the process is not ready.
    fn ready(&self) -> Result<(), String>;
    /// `Err` says in plain words why the process should be restarted.
    fn healthy(&self) -> Result<(), String>;
}

/// Serves until the listener fails; run it as a task.
pub async fn serve(listener: TcpListener, pages: Arc<dyn Pages>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, or a connection that broke at once: go on a little later.
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let pages = pages.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, pages.clone()));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(64 * 1024)
                .serve_connection(TokioIo::new(stream), service);
            if let Ok(Err(error)) = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(slot);
        });
    }
}

async fn answer(request: Request<Incoming>, pages: Arc<dyn Pages>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refused = page(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET and HEAD are answered\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(refused);
    }
    let state = |result: Result<(), String>, well: &str| match result {
        Ok(()) => page(StatusCode::OK, PLAIN, format!("{well}\n")),
        Err(why) => page(StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{why}\n")),
    };
    Ok(match request.uri().path() {
        "/metrics" => {
            // One at a time: scrapers share what reading the state costs, and texts do not pile up in memory.
            let turn = SCRAPES.acquire().await;
            let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
            let (format, gzip) = (Format::accepted(header(ACCEPT)), takes_gzip(header(ACCEPT_ENCODING)));
            let scraping = tokio::task::spawn_blocking(move || {
                // Held by the work itself: a client that goes away does not make room for another.
                let _turn = turn;
                scrape(&*pages, format, gzip)
            });
            match scraping.await {
                Ok(body) => scraped(body, format, gzip),
                Err(error) => page(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("the scrape failed: {error}\n")),
            }
        }
        "/-/healthy" => state(pages.healthy(), "healthy"),
        "/-/ready" => match tokio::task::spawn_blocking(move || pages.ready()).await {
            Ok(result) => state(result, "ready"),
            Err(error) => page(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("no answer: {error}\n")),
        },
        "/" => page(StatusCode::OK, HTML, INDEX),
        _ => page(StatusCode::NOT_FOUND, PLAIN, "not found; see /\n"),
    })
}

/// One scrape, packed if it is asked for: over a network its size costs more than packing it fast.
fn scrape(pages: &dyn Pages, format: Format, gzip: bool) -> Vec<u8> {
    let body = pages.metrics(format);
    if !gzip {
        return body;
    }
    let mut packed = GzEncoder::new(Vec::with_capacity(body.len() / 8), Compression::fast());
    // Writing to memory does not fail.
    let written = packed.write_all(&body).and_then(|()| packed.finish());
    written.unwrap_or_else(|error| unreachable!("memory refuses nothing: {error}"))
}

fn scraped(body: Vec<u8>, format: Format, gzip: bool) -> Response<Full<Bytes>> {
    let mut response = page(StatusCode::OK, format.content_type(), body);
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    if gzip {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

fn page(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
