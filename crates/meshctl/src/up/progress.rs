//! What is shown while a cluster starts: a line a node that changes on a terminal, plain lines elsewhere.
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::plan::Plan;

pub(super) struct Progress {
    began: Instant,
    names: Vec<String>,
    bars: Option<Vec<ProgressBar>>,
}

impl Progress {
    pub(super) fn new(plan: &Plan) -> Self {
        let names: Vec<_> = plan.nodes.iter().map(|node| node.name.clone()).collect();
        let bars = std::io::stderr().is_terminal().then(|| bars(&names));
        let progress = Self { began: Instant::now(), names, bars };
        if progress.bars.is_none() {
            println!("starting {}", progress.names.join(", "));
        }
        progress
    }

    /// What a node still waits for. Only where it can be overwritten.
    pub(super) fn waits(&self, nth: usize, reason: &str) {
        if let Some(bar) = self.bars.as_ref().and_then(|bars| bars.get(nth)) {
            bar.set_message(reason.to_owned());
        }
    }

    pub(super) fn ready(&self, nth: usize) {
        let after = format!("ready after {:.1} s", self.began.elapsed().as_secs_f32());
        match self.bars.as_ref().and_then(|bars| bars.get(nth)) {
            Some(bar) => bar.finish_with_message(after),
            None => println!("{:15} {after}", self.names[nth]),
        }
    }

    /// Leaves the terminal to whoever writes next.
    pub(super) fn give_way(&self) {
        for bar in self.bars.iter().flatten() {
            bar.abandon();
        }
    }
}

fn bars(names: &[String]) -> Vec<ProgressBar> {
    let all = MultiProgress::new();
    let style = ProgressStyle::with_template("{spinner} {prefix:15} {wide_msg}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    let bar = |name: &String| {
        let bar = all.add(
            ProgressBar::new_spinner().with_style(style.clone()).with_prefix(name.clone()).with_message("starting"),
        );
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    };
    names.iter().map(bar).collect()
}
