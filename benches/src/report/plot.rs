//! Plots as SVG, without a library: bars, and curves of latency by percentile.
use std::fmt::Write as _;

const WIDTH: f64 = 620.0;
const ROW: f64 = 24.0;
const LABEL: f64 = 120.0;
const VALUE: f64 = 90.0;
const HEIGHT: f64 = 300.0;
const MARGIN: f64 = 50.0;

/// Colours that can be told apart, also by those who see fewer of them.
const COLOURS: [&str; 10] =
    ["#4477aa", "#88ccee", "#44aa99", "#999933", "#cc3311", "#ee7733", "#332288", "#aa4499", "#bbbbbb", "#117733"];

/// The colour of the nth variant.
pub(super) fn colour(nth: usize) -> &'static str {
    COLOURS[nth % COLOURS.len()]
}

/// Horizontal bars. `band` is drawn around the end of the first one, as a part of its length.
pub(super) fn bars(values: &[(String, f64)], band: Option<f64>, digits: usize) -> String {
    let (most, room) = (values.iter().map(|(_, v)| *v).fold(0.0, f64::max), WIDTH - LABEL - VALUE);
    let length = |value: f64| if most > 0.0 { room * value / most } else { 0.0 };
    let height = ROW * values.len() as f64;
    let mut svg = open(height);
    if let (Some(band), Some((_, first))) = (band, values.first()) {
        let (from, wide) = (LABEL + length(first * (1.0 - band / 2.0)), length(first * band).max(1.0));
        let _ = write!(svg, r##"<rect x="{from:.1}" y="0" width="{wide:.1}" height="{height}" fill="#eeeecc"/>"##);
    }
    for (nth, (name, value)) in values.iter().enumerate() {
        let (y, wide) = (ROW * nth as f64, length(*value));
        let _ = write!(
            svg,
            r#"<text x="0" y="{:.1}">{name}</text><rect x="{LABEL}" y="{:.1}" width="{wide:.1}" height="{:.1}" fill="{}"/><text x="{:.1}" y="{:.1}">{value:.digits$}</text>"#,
            y + 16.0,
            y + 4.0,
            ROW - 8.0,
            colour(nth),
            LABEL + wide + 6.0,
            y + 16.0,
        );
    }
    svg + "</svg>"
}

/// Microseconds over percent, both on logarithmic scales; percent by the distance to 100.
pub(super) fn curves(curves: &[(String, Vec<(f64, f64)>)]) -> String {
    let values = || curves.iter().flat_map(|(_, curve)| curve).map(|(_, us)| us.max(1.0));
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(1.0, f64::max));
    if !low.is_finite() {
        return String::new();
    }
    let (low, high) = (low.log10().floor(), high.log10().ceil());
    let y = |us: f64| HEIGHT - MARGIN - (us.max(1.0).log10() - low) / (high - low).max(1.0) * (HEIGHT - MARGIN - 10.0);
    let x = |percent: f64| MARGIN + nines(percent) / 4.0 * (WIDTH - MARGIN - 40.0);
    let mut svg = open(HEIGHT);
    grid(&mut svg, low as i32..=high as i32, x, y);
    for (nth, (_, curve)) in curves.iter().enumerate() {
        let points: String = curve.iter().map(|(p, us)| format!("{:.1},{:.1} ", x(*p), y(*us))).collect();
        let colour = colour(nth);
        let _ = write!(svg, r#"<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>"#);
    }
    svg + "</svg>"
}

fn grid(svg: &mut String, decades: impl Iterator<Item = i32>, x: impl Fn(f64) -> f64, y: impl Fn(f64) -> f64) {
    for decade in decades {
        let (us, at) = (10_f64.powi(decade), y(10_f64.powi(decade)));
        let _ = write!(
            svg,
            r##"<line x1="{MARGIN}" x2="{WIDTH}" y1="{at:.1}" y2="{at:.1}" stroke="#ddd"/><text x="0" y="{:.1}">{}</text>"##,
            at + 4.0,
            time(us),
        );
    }
    for percent in [0.0, 50.0, 90.0, 99.0, 99.9, 99.99] {
        let at = x(percent);
        let _ = write!(
            svg,
            r##"<line x1="{at:.1}" x2="{at:.1}" y1="10" y2="{:.1}" stroke="#ddd"/><text x="{:.1}" y="{:.1}">{percent}</text>"##,
            HEIGHT - MARGIN,
            at - 12.0,
            HEIGHT - MARGIN + 18.0,
        );
    }
}

/// 0 → 0, 90 → 1, 99 → 2, and 99.99 and above → 4.
fn nines(percent: f64) -> f64 {
    (-(1.0 - percent / 100.0).max(1e-4).log10()).min(4.0)
}

fn time(us: f64) -> String {
    match us {
        us if us >= 1e6 => format!("{} s", us / 1e6),
        us if us >= 1e3 => format!("{} ms", us / 1e3),
        us => format!("{us} µs"),
    }
}

fn open(height: f64) -> String {
    format!(r#"<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bar_is_as_long_as_its_value() {
        let svg = bars(&[("a".into(), 2.0), ("b".into(), 4.0)], Some(0.1), 1);
        assert!(svg.contains(r#"width="205.0""#) && svg.contains(r#"width="410.0""#), "{svg}");
        assert!(svg.ends_with("</svg>"));
    }

    #[test]
    fn a_curve_goes_through_every_percentile() {
        let svg = curves(&[("a".into(), vec![(0.0, 10.0), (99.0, 100.0), (100.0, 1_000.0)])]);
        let points = svg.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(points.split_whitespace().count(), 3);
        assert!(curves(&[]).is_empty());
    }
}
