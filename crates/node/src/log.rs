//! The log: one line an event on stdout, in the shape of Milvus' own.
//!
//! `[2026/01/02 03:04:05.678 +00:00] [INFO] [target] ["message"] [key=value] …`
//!
//! A value that would break the shape (a space, a bracket, a quote, a line break) is quoted and escaped, so that no peer
//! can write a line of its own into the log.
use std::fmt::{self, Write as _};

pub use internaltls::foreign::chain;
use settings::{LogLevel, Settings};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

/// What is ours; everything else only speaks up to warn.
const OURS: [&str; 8] =
    ["internaltls", "settings", "node", "coordinator", "data_node", "proxy", "vector_store", "meshctl"];

const STAMP: &[BorrowedFormatItem<'_>] =
    format_description!("[year]/[month]/[day] [hour]:[minute]:[second].[subsecond digits:3] +00:00");

/// Sends this process's log to stdout. The first call counts: several roles in one process share a log.
pub fn init(level: LogLevel) {
    let lines = tracing_subscriber::fmt::layer().event_format(Lines).with_ansi(false);
    let started = tracing_subscriber::registry().with(lines).with(targets(level)).try_init();
    if started.is_err() {
        tracing::debug!("the log was already started");
    }
}

/// Logs what there is to say about a configuration.
pub fn remarks(settings: &Settings) {
    settings.notices.iter().for_each(|notice| tracing::info!("{notice}"));
    settings.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
}

fn targets(level: LogLevel) -> Targets {
    let ours = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    Targets::new().with_default(ours.min(LevelFilter::WARN)).with_targets(OURS.map(|target| (target, ours)))
}

/// Formats an event as one line.
#[derive(Debug, Clone, Copy)]
struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let about = event.metadata();
        let (stamp, level) = (stamp(OffsetDateTime::now_utc()), level(*about.level()));
        writeln!(writer, "[{stamp}] [{level}] [{}] [{}]{}", about.target(), quoted(&fields.message), fields.rest)
    }
}

fn stamp(now: OffsetDateTime) -> String {
    now.format(STAMP).unwrap_or_default()
}

fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARN",
        Level::INFO => "INFO",
        Level::DEBUG => "DEBUG",
        Level::TRACE => "TRACE",
    }
}

#[derive(Debug, Default)]
struct Fields {
    message: String,
    rest: String,
}

impl Fields {
    fn put(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            // Writing to a String cannot fail.
            let _ = write!(self.rest, " [{}={}]", field.name(), bare_or_quoted(value));
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, &chain(value));
    }
}

fn bare_or_quoted(text: &str) -> String {
    let bare = |c: char| !c.is_control() && !c.is_whitespace() && !"[]\"=\\".contains(c);
    if !text.is_empty() && text.chars().all(bare) { text.to_owned() } else { quoted(text) }
}

/// As a JSON string: quotes, backslashes and control characters escaped.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: LogLevel, what: impl FnOnce()) -> String {
        let page = Page::default();
        let to = page.clone();
        let lines = tracing_subscriber::fmt::layer().event_format(Lines).with_writer(move || to.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines).with(targets(level)), what);
        String::from_utf8(page.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn line_has_the_shape_of_milvus() {
        let line = logged(LogLevel::Info, || tracing::info!(value = true, leaf = "a b", "Internal TLS Enabled"));
        let (stamp, rest) = line.split_once("] ").unwrap();
        assert_eq!(rest, "[INFO] [node::log::tests] [\"Internal TLS Enabled\"] [value=true] [leaf=\"a b\"]\n");
        assert_eq!(stamp.len(), "[2026/01/02 03:04:05.678 +00:00".len(), "{stamp}");
    }

    #[test]
    fn peer_cannot_write_a_line() {
        let line = logged(LogLevel::Info, || tracing::info!(peer = "x\n[2026] [INFO] [\"ok\"]", "a\nb"));
        assert_eq!(line.lines().count(), 1, "{line}");
        assert!(line.contains(r#"["a\nb"] [peer="x\n[2026] [INFO] [\"ok\"]"]"#), "{line}");
    }

    #[test]
    fn only_ours_is_heard_below_warn() {
        let line = logged(LogLevel::Debug, || {
            tracing::debug!("ours");
            tracing::info!(target: "h2", "theirs");
            tracing::warn!(target: "h2", "theirs, grave");
        });
        assert!(line.contains("ours") && line.contains("grave") && !line.contains("\"theirs\""), "{line}");
    }

    #[test]
    fn errors_come_with_their_causes() {
        let cause = std::io::Error::other("disk on fire");
        let error = settings::SettingsError::Read { path: "x".into(), source: cause };
        let error: &(dyn std::error::Error + 'static) = &error;
        let line = logged(LogLevel::Info, || tracing::warn!(error, "not read"));
        assert!(line.contains(": disk on fire"), "{line}");
    }
}
