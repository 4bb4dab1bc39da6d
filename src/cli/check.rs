//! `scopegate check`: what `serve` would say, before it matters.

use std::path::Path;
use std::process::ExitCode;

use super::PROBLEMS;
use crate::config::problem::Problems;
use crate::reload::Files;

/// Prints every problem; ends with [`PROBLEMS`] where one is more than a warning.
pub(super) fn run(config: &Path) -> ExitCode {
    let (problems, files) = match Files::load(config) {
        Ok(loaded) => (loaded.problems, Some(loaded.value)),
        Err(problems) => (problems, None),
    };
    eprint!("{problems}");
    let (errors, warnings) = count(&problems);
    if errors > 0 {
        eprintln!("{}: {errors} to mend, {warnings} to look at", config.display());
        return ExitCode::from(PROBLEMS);
    }
    if let Some(files) = files {
        let live = &files.config().live;
        let routes: usize = live.surfaces.iter().map(|surface| surface.routes.len()).sum();
        println!(
            "{}: good; {} surfaces, {routes} routes, {} teams, {} keys{}",
            config.display(),
            live.surfaces.len(),
            files.keys().teams.len(),
            files.keys().keys.len(),
            if warnings > 0 { format!(", {warnings} to look at") } else { String::new() },
        );
    }
    ExitCode::SUCCESS
}

fn count(problems: &Problems) -> (usize, usize) {
    (problems.errors(), problems.iter().count() - problems.errors())
}
