//! The HTTP endpoint: an accept loop of our own with a cap on connections and time limits. Nothing on it changes state.
//!
//! `peers` is who is connected and who has to leave, [`guard`] who may see what there is, `scrapes` what they get.

pub mod guard;
mod peers;
mod scrapes;

use std::convert::Infallible;
use std::io::Write as _;
use std::net::{IpAddr, Shutdown};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, ALLOW, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER, VARY,
    WWW_AUTHENTICATE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::format::{Format, takes_gzip};
use crate::page::Page;
use guard::Guard;
use peers::{Peer, Peers, Place, Watched};
use scrapes::{Scrape, Scrapes};

/// Time for a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a request's head to arrive, and for an idle connection to send another.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// After so long a connection answers what it was asked and nothing more: scrapers connect again.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(120);
/// And so long after that it is cut off, whatever it is doing.
const LAST_ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Most bytes of a request's head.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a scrape that are handed over at once.
const CHUNK_BYTES: usize = 64 * 1024;

const PLAIN: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const INDEX: &str = "<!doctype html><html lang=\"en\"><title>Larum</title><h1>Larum</h1><ul>\
<li><a href=\"/metrics\">metrics</a><li><a href=\"/-/healthy\">healthy</a><li><a href=\"/-/ready\">ready</a></ul></html>";
const TIMED_OUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
const FULL_UP: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// What the endpoint shows.
pub trait Pages: Send + Sync + 'static {
    /// One scrape.
    fn metrics(&self, format: Format) -> Page;
    /// `Err` says in plain words why the process is not ready.
    fn ready(&self) -> Result<(), String>;
    /// `Err` says in plain words why the process should be restarted.
    fn healthy(&self) -> Result<(), String>;
}

/// In which form a scrape is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    format: Format,
    gzip: bool,
}

/// What all connections share.
struct Endpoint {
    pages: Arc<dyn Pages>,
    guard: Arc<Guard>,
    scrapes: Arc<Scrapes>,
}

/// Serves `pages` to whom `guard` lets in until the runtime ends.
pub async fn serve(listener: TcpListener, pages: Arc<dyn Pages>, guard: Arc<Guard>) {
    let peers = Peers::new();
    let scrapes = Scrapes::new(pages.clone(), peers.clone());
    let endpoint = Arc::new(Endpoint { pages, guard, scrapes });
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, or a connection that broke at once: go on a little later.
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        match peers.admit() {
            Some(place) => drop(tokio::spawn(endpoint.clone().attend(stream, address.ip(), place))),
            None => turn_away(stream),
        }
    }
}

/// Says that there is no room; whoever speaks TLS learns as much from the end of the connection.
fn turn_away(stream: TcpStream) {
    // It fits into the socket's buffer, or the client has gone already. The runtime would wait to be told that it can be
    // written to; the system knows.
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.write_all(FULL_UP);
        let _ = stream.shutdown(Shutdown::Write);
    }
}

impl Endpoint {
    /// Serves one connection until it ends, or has to.
    async fn attend(self: Arc<Self>, stream: TcpStream, address: IpAddr, place: Place) {
        let attended = async {
            let stream = Watched::new(stream, &place);
            let rules = self.guard.rules();
            let Some(tls) = &rules.tls else { return self.clone().converse(stream, address, place.peer.clone()).await };
            let Ok(Ok(stream)) = timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await else { return };
            if rules.admits(stream.get_ref().1.peer_certificates()) {
                self.clone().converse(stream, address, place.peer.clone()).await;
            }
        };
        tokio::select! {
            () = place.peer.told_to_leave() => {}
            _ = timeout(CONNECTION_AGE_MAX + LAST_ANSWER_TIMEOUT, attended) => {}
        }
    }

    /// Answers requests, one after the other.
    async fn converse<S>(self: Arc<Self>, stream: S, address: IpAddr, peer: Arc<Peer>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let asked = peer.clone();
        let service = service_fn(move |request| {
            asked.mid_request.store(false, Ordering::Relaxed);
            Box::pin(self.clone().answer(request, address, asked.clone()))
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        let mut age = Box::pin(tokio::time::sleep(CONNECTION_AGE_MAX));
        let mut is_last = false;
        let ended = std::future::poll_fn(|cx| {
            if !is_last && age.as_mut().poll(cx).is_ready() {
                is_last = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            connection.poll_without_shutdown(cx)
        })
        .await;
        let mut stream = connection.into_parts().io.into_inner();
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
            // An idle connection is closed without a word: the client has asked for nothing.
            if error.is_timeout() && peer.mid_request.load(Ordering::Relaxed) {
                let _ = stream.write_all(TIMED_OUT).await;
            }
        }
        let _ = stream.shutdown().await;
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        address: IpAddr,
        peer: Arc<Peer>,
    ) -> Result<Response<UnsyncBoxBody<Bytes, Infallible>>, Infallible> {
        let mut response = match self.guard.lets_in(address, request.headers().get(AUTHORIZATION)).await {
            Ok(true) => self.page(request, peer).await,
            Ok(false) => {
                let mut refused = page(StatusCode::UNAUTHORIZED, PLAIN, "user and password, please\n");
                refused.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"larum\""));
                refused
            }
            Err(()) => busy("too many passwords to check; try again".to_string()),
        };
        for (name, value) in &self.guard.rules().headers {
            response.headers_mut().insert(name, value.clone());
        }
        Ok(response)
    }

    async fn page(&self, request: Request<Incoming>, peer: Arc<Peer>) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut refused = page(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET and HEAD are answered\n");
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        let state = |result: Result<(), String>, well: &str| match result {
            Ok(()) => page(StatusCode::OK, PLAIN, format!("{well}\n")),
            Err(why) => page(StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{why}\n")),
        };
        match request.uri().path() {
            "/metrics" => {
                let header =
                    |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
                let format = Format::accepted(header(ACCEPT));
                let wanted = Wanted { format, gzip: takes_gzip(header(ACCEPT_ENCODING)) };
                match self.scrapes.get(wanted).await {
                    Ok(scrape) => scraped(scrape, wanted, peer),
                    Err(why) => busy(why),
                }
            }
            "/-/healthy" => state(self.pages.healthy(), "healthy"),
            "/-/ready" => {
                let pages = self.pages.clone();
                match tokio::task::spawn_blocking(move || pages.ready()).await {
                    Ok(result) => state(result, "ready"),
                    Err(error) => page(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("no answer: {error}\n")),
                }
            }
            "/" => page(StatusCode::OK, HTML, INDEX),
            _ => page(StatusCode::NOT_FOUND, PLAIN, "not found; see /\n"),
        }
    }
}

/// A scrape on its way to one client, chunk by chunk.
struct Sending {
    scrape: Arc<Scrape>,
    /// The part that is being sent, and how much of it was.
    part: usize,
    of_part: usize,
    /// How much is left in all.
    left: usize,
    peer: Arc<Peer>,
}

impl Body for Sending {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(part) = self.scrape.page.parts().get(self.part) else { return Poll::Ready(None) };
        let end = (self.of_part + CHUNK_BYTES).min(part.len());
        let chunk = part.slice(self.of_part..end);
        let is_whole = end == part.len();
        (self.part, self.of_part) = if is_whole { (self.part + 1, 0) } else { (self.part, end) };
        self.left -= chunk.len();
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.peer.is_served.store(false, Ordering::Relaxed);
    }
}

fn scraped(scrape: Arc<Scrape>, wanted: Wanted, peer: Arc<Peer>) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
    peer.is_served.store(true, Ordering::Relaxed);
    let left = scrape.page.len();
    let mut response = Response::new(Sending { scrape, part: 0, of_part: 0, left, peer }.boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(wanted.format.content_type()));
    headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    if wanted.gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

fn busy(why: String) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
    let mut response = page(StatusCode::SERVICE_UNAVAILABLE, PLAIN, why + "\n");
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn page(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
