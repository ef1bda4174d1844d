//! A consumer that a Prometheus server can scrape, and that writes what happens to the standard error.
//!
//! `cargo run --example metrics -- 127.0.0.1:9184`, then `curl 127.0.0.1:9184/metrics`. The dashboard
//! `examples/dashboard.json` shows these meters in Grafana.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use onceonly::Dedup;
use tracing_subscriber::layer::SubscriberExt;

/// Events of the store on the standard error, as they come. A service has its own subscriber.
struct Lines;

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Lines {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        let mut err = std::io::stderr().lock();
        let _ = write!(err, "{}", event.metadata().level());
        event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            let _ = write!(err, " {}={value:?}", field.name());
        });
        let _ = writeln!(err);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9184".to_owned());
    // Both before the store is opened: it takes the recorder that is there.
    let recorder = PrometheusBuilder::new().install_recorder()?;
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Lines))?;
    let dedup = Dedup::builder().window(Duration::from_secs(60)).in_memory()?;

    // The consumer: every tenth message comes twice.
    let store = dedup.clone();
    thread::spawn(move || {
        for number in 0_u64.. {
            for _ in 0..=u64::from(number.is_multiple_of(10)) {
                let _ = store.process_once(number.to_le_bytes(), |_| Ok::<_, String>(()));
            }
            thread::sleep(Duration::from_millis(1));
        }
    });

    let listener = TcpListener::bind(&address)?;
    writeln!(std::io::stdout(), "http://{}/metrics", listener.local_addr()?)?;
    for stream in listener.incoming() {
        let mut stream = stream?;
        // The request's head, up to the empty line.
        let head = BufReader::new(stream.try_clone()?).lines();
        head.map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
        let body = recorder.render();
        let length = body.len();
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}");
        write!(stream, "{head}\r\nConnection: close\r\n\r\n{body}")?;
    }
    Ok(())
}
