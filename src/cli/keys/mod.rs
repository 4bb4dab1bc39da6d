//! `scopegate keys`: makes keys, and changes what is known of them, in a file or on a server.

mod beside;
mod edit;
mod file;
mod import;
mod list;
mod make;
mod place;
mod postgres;
mod redis;
mod rules;
mod store;
mod used;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use make::{Entry, Rotation};
use place::Place;

#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// Make a key from the system's randomness. It is shown once, and kept nowhere.
    New {
        #[command(flatten)]
        entry: Entry,
        /// What the key begins with [default: `key_prefix` of the configuration, or sgk_].
        #[arg(long, value_name = "PREFIX_")]
        prefix: Option<String>,
        #[command(flatten)]
        place: Place,
    },
    /// Digest a key that already exists, such as one that TelAPI made.
    Add {
        /// Read the key from standard input, where no shell history keeps it.
        #[arg(long, required = true)]
        stdin: bool,
        #[command(flatten)]
        entry: Entry,
        #[command(flatten)]
        place: Place,
    },
    /// List the keys: whose they are, what they may do, and whether they still open anything.
    List {
        /// Those of this team.
        #[arg(long)]
        team: Option<String>,
        /// Ask a process who still uses keys that others have replaced; may be given more than once, for each replica.
        #[arg(long = "admin", value_name = "http://HOST:PORT")]
        admins: Vec<String>,
        /// For machines.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Show all that is known of one key.
    Show {
        /// Its id.
        id: String,
        /// For machines.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Put a new key in the place of one, which goes on opening the same for a while.
    Rotate {
        /// The id, which stays.
        id: String,
        #[command(flatten)]
        rotation: Rotation,
        #[command(flatten)]
        place: Place,
    },
    /// Turn a key off. What lives on it ends, and its row stays, so that it is known what it was.
    Revoke {
        /// Its id.
        id: String,
        /// Why, for people.
        #[arg(long, value_name = "WHY")]
        reason: Option<String>,
        #[command(flatten)]
        place: Place,
    },
    /// Take in many keys at once, all of them or none: one JSON object a line, see docs/keys.md.
    Import {
        /// The file of them.
        #[arg(value_name = "LINES")]
        lines: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// Say whose a key is and what it may do, or why it is refused: then end with 1, or with 2 where nobody can say.
    Verify {
        /// Read the key from standard input, where no shell history keeps it.
        #[arg(long, required = true)]
        stdin: bool,
        /// A scope that it must have.
        #[arg(long, value_name = "SCOPE")]
        scope: Option<String>,
        #[command(flatten)]
        place: Place,
    },
}

/// Does what is asked.
pub(super) fn run(command: Keys) -> anyhow::Result<ExitCode> {
    match command {
        Keys::New { entry, prefix, place } => make::new(&entry, prefix.as_deref(), &place),
        Keys::Add { stdin: _, entry, place } => make::add(&entry, &place),
        Keys::List { team, admins, json, place } => list::list(team.as_deref(), &admins, json, &place),
        Keys::Show { id, json, place } => list::show(&id, json, &place),
        Keys::Rotate { id, rotation, place } => make::rotate(&id, &rotation, &place),
        Keys::Revoke { id, reason, place } => make::revoke(&id, reason.as_deref(), &place),
        Keys::Import { lines, place } => import::run(&lines, &place),
        Keys::Verify { stdin: _, scope, place } => Ok(verify::run(scope.as_deref(), &place)),
    }
}
