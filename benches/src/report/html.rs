//! One page that needs nothing else.
use std::fmt::Write as _;

use super::plot::{bars, colour, curves};
use crate::figures::{Figure, Outcome};

const HEAD: &str = r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>internaltls: encrypted internal RPC, measured</title><style>
body{font:15px/1.5 system-ui,sans-serif;max-width:1320px;margin:2em auto;padding:0 1em;color:#222}
section{border-top:1px solid #ccc;padding:1em 0}.plots{display:flex;flex-wrap:wrap;gap:2em}
svg text{font:12px system-ui,sans-serif;fill:#222}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
td,th{padding:.15em .8em;text-align:right}td:first-child,th:first-child{text-align:left}tr:nth-child(even){background:#f6f6f6}
.key span{display:inline-block;margin-right:1em}.key i{display:inline-block;width:.8em;height:.8em;margin-right:.3em}
</style></head><body><h1>Encrypted internal RPC, measured</h1>
<p>Medians over all rounds. The figure to trust is processor time per call, of client, server and sidecars together; the pale
band behind it is the noise floor: rounds of one and the same variant lie that far apart.</p>
"#;

/// The whole report.
#[must_use]
pub fn page(outcomes: &[Outcome]) -> String {
    let sections: String = outcomes.iter().map(section).collect();
    format!("{HEAD}{sections}</body></html>\n")
}

fn section(outcome: &Outcome) -> String {
    let figures = outcome.figures();
    let (name, about) = (outcome.scenario.name, outcome.scenario.about);
    let noise = figures.first().and_then(|figure| figure.noise);
    let of = |what: fn(&Figure) -> f64| figures.iter().map(|f| (f.variant.clone(), what(f))).collect::<Vec<_>>();
    let cpu = bars(&of(|figure| figure.cpu_s_per_100k), noise, 2);
    let rate = bars(&of(|figure| figure.calls_per_s), None, 0);
    let lines: Vec<_> = figures.iter().map(|figure| (figure.variant.clone(), figure.curve.clone())).collect();
    format!(
        "<section><h2>{name}</h2><p>{about}</p>{}<div class=\"plots\">\
         <div><h3>CPU seconds per 100,000 calls</h3>{cpu}<h3>Calls a second</h3>{rate}</div>\
         <div><h3>Latency by percentile</h3>{}{}</div></div></section>\n",
        rows(&figures),
        curves(&lines),
        key(&figures),
    )
}

fn key(figures: &[Figure]) -> String {
    let entry = |(nth, figure): (usize, &Figure)| {
        format!("<span><i style=\"background:{}\"></i>{}</span>", colour(nth), figure.variant)
    };
    format!("<p class=\"key\">{}</p>", figures.iter().enumerate().map(entry).collect::<String>())
}

fn rows(figures: &[Figure]) -> String {
    let mut html = String::from(
        "<table><tr><th></th><th>calls/s</th><th>p50 µs</th><th>p99 µs</th><th>p99.9 µs</th><th>CPU s/100k</th>\
         <th>MB/s</th><th>CPU ratio</th><th>spread</th><th>KiB a connection</th></tr>",
    );
    for f in figures {
        let optional = |value: Option<f64>, digits: usize| value.map_or(String::new(), |v| format!("{v:.digits$}"));
        let _ = write!(
            html,
            "<tr><td>{}</td><td>{:.0}</td><td>{:.0}</td><td>{:.0}</td><td>{:.0}</td><td>{:.2}</td><td>{:.1}</td><td>{}</td><td>{:.0} %</td><td>{}</td></tr>",
            f.variant,
            f.calls_per_s,
            f.p50_us,
            f.p99_us,
            f.p999_us,
            f.cpu_s_per_100k,
            f.mb_per_s,
            optional(f.cpu_ratio, 2),
            f.spread * 100.0,
            optional(f.bytes_per_connection.map(|bytes| bytes / 1024.0), 1),
        );
    }
    html + "</table>"
}
