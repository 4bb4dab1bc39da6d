//! How many instructions the pieces of a request take: `cargo bench --bench counts`, with valgrind and gungraun-runner.
//!
//! Each has a limit 3 % above what it took last, so that who makes one dearer knows. SHA-256 is counted without the
//! processor's own instruction for it, which valgrind does not know: about 3,000 of every decision.

#![allow(missing_docs, reason = "what the macros make has none")]

use gungraun::{
    Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};

mod pieces;
#[path = "pieces/piped.rs"]
mod piped;

use pieces::{Piece, Pieces};
use piped::Piped;

/// Each is counted over so many runs, since the allocator tidies up in one of them or another.
const RUNS: u64 = 16;

/// Once before, so that what is made at first use is there.
fn ready(piece: Piece) -> (Pieces, Piece) {
    let mut pieces = Pieces::new();
    piece(&mut pieces);
    (pieces, piece)
}

fn at_most(instructions: u64) -> LibraryBenchmarkConfig {
    let mut callgrind = Callgrind::default();
    callgrind.hard_limits([(EventKind::Ir, instructions * RUNS)]);
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(callgrind);
    config
}

#[library_benchmark(setup = ready)]
#[bench::request(args = (Pieces::request), config = at_most(3_060))]
#[bench::route(args = (Pieces::route), config = at_most(1_650))]
#[bench::digest(args = (Pieces::digest), config = at_most(3_620))]
#[bench::decide(args = (Pieces::decide), config = at_most(6_670))]
#[bench::headers(args = (Pieces::headers), config = at_most(7_920))]
#[bench::answer(args = (Pieces::answer), config = at_most(3_940))]
#[bench::record(args = (Pieces::record), config = at_most(1_520))]
fn piece((mut pieces, piece): (Pieces, Piece)) -> Pieces {
    for _ in 0..RUNS {
        piece(&mut pieces);
    }
    // Returned, so that it is not dropped while instructions are counted.
    pieces
}

/// As [`ready`].
fn open() -> Piped {
    let mut piped = Piped::new();
    piped.echo();
    piped
}

#[library_benchmark(setup = open)]
#[bench::tunnel(config = at_most(8_050))]
fn frame(mut piped: Piped) -> Piped {
    for _ in 0..RUNS {
        piped.echo();
    }
    piped
}

library_benchmark_group!(name = pieces_of_a_request, benchmarks = [piece, frame]);
main!(library_benchmark_groups = pieces_of_a_request);
