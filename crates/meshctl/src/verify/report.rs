//! The table.
use std::collections::BTreeSet;
use std::fmt::Write;
use std::io::IsTerminal;
use std::process::ExitCode;

use super::probe::{Line, Verdict};

/// Prints the table and what follows from it; the exit code is 1 if anything surprised, or nobody was there.
#[must_use]
pub fn print(lines: &[Line]) -> ExitCode {
    print!("{}", table(lines, std::io::stdout().is_terminal()));
    let failed = count(lines, Verdict::Surprise) + count(lines, Verdict::Absent);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The table as text, a line a probe and a summary.
#[must_use]
pub fn table(lines: &[Line], coloured: bool) -> String {
    let width = lines.iter().map(|line| line.node.len()).max().unwrap_or(0).clamp(4, 253);
    let mut text = format!("{:9}  {:width$}  {:21}  {:25}  SEEN\n", "", "NODE", "ADDRESS", "PROBE");
    for line in lines {
        let address = line.address.to_string();
        let _ = writeln!(
            text,
            "{}  {:width$}  {address:21}  {:25}  {}",
            mark(line.verdict, coloured),
            line.node,
            line.probe,
            line.seen
        );
    }
    text.push_str(&summary(lines));
    text
}

fn summary(lines: &[Line]) -> String {
    let (surprises, not_tried) = (count(lines, Verdict::Surprise), count(lines, Verdict::NotTried));
    let (green, all) = (count(lines, Verdict::Green), lines.len());
    let let_in = lines.iter().filter(|line| line.let_in()).count();
    let mut said = Vec::new();
    if let_in > 0 {
        said.push(format!("{let_in} of {all} probes were let in as intruders: internal TLS does not hold there"));
    }
    if surprises > let_in {
        said.push(format!("{} of {all} probes saw neither what they must nor a hole: see above", surprises - let_in));
    }
    if count(lines, Verdict::Absent) > 0 {
        let absent = lines.iter().filter(|line| line.verdict == Verdict::Absent);
        let absent: BTreeSet<String> = absent.map(|line| format!("{} ({})", line.address, line.node)).collect();
        let absent: Vec<String> = absent.into_iter().collect();
        said.push(format!("nobody listens on {}: nothing is proven there, and nobody was let in", absent.join(", ")));
    }
    match (said.is_empty(), not_tried) {
        (true, 0) => format!("all {green} probes green: intruders are refused, the right client is served\n"),
        (true, _) => format!("{green} probes green, {not_tried} not tried: no surprise, but no full proof\n"),
        _ => said.join("\n") + "\n",
    }
}

fn count(lines: &[Line], verdict: Verdict) -> usize {
    lines.iter().filter(|line| line.verdict == verdict).count()
}

fn mark(verdict: Verdict, coloured: bool) -> String {
    let (word, colour) = match verdict {
        Verdict::Green => ("ok", 32),
        Verdict::Surprise => ("SURPRISE", 31),
        Verdict::Absent => ("absent", 31),
        Verdict::NotTried => ("not tried", 33),
    };
    if coloured { format!("\x1b[{colour}m{word:9}\x1b[0m") } else { format!("{word:9}") }
}
