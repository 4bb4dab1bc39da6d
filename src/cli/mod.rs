//! One file a command. Only this module prints.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to a person")]

mod check;
mod demo;
mod keys;
mod serve;
mod stand_in;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What a command ends with where the configuration has problems.
const PROBLEMS: u8 = 2;

/// A sidecar that checks API keys and scopes in front of a service nobody may change.
#[derive(Debug, Parser)]
#[command(name = "scopegate", version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Decide and forward requests until SIGTERM or SIGINT, then drain.
    Serve {
        /// The configuration file; config/full.yaml of the repository shows every key.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Load a configuration as `serve` would, print every problem with its place, and end with 2 if there is one.
    Check {
        /// The configuration file.
        #[arg(value_name = "FILE")]
        config: PathBuf,
        /// Resolve the names of upstreams too, and connect to each.
        #[arg(long)]
        connect: bool,
    },
    /// Make, show, replace and turn off keys, in a keys file or on a server.
    #[command(subcommand)]
    Keys(Box<keys::Keys>),
    /// Show it at work: scopegate, a stand-in for TelAPI and three keys, in one process on loopback.
    Demo,
}

/// Runs the command of this process' arguments.
#[must_use]
pub fn run() -> ExitCode {
    let ended = match Arguments::parse().command {
        Command::Serve { config } => serve::run(&config),
        Command::Check { config, connect } => Ok(check::run(&config, connect)),
        Command::Keys(command) => keys::run(*command),
        Command::Demo => demo::run(),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("scopegate: {error:#}");
        ExitCode::FAILURE
    })
}
