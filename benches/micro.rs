//! How long the pieces of a request take: `cargo bench --bench micro`.

use criterion::{Criterion, criterion_group, criterion_main};

mod pieces;
#[path = "pieces/piped.rs"]
mod piped;
#[path = "pieces/whole.rs"]
mod whole;

use pieces::{Piece, Pieces};
use piped::Piped;
use whole::Whole;

fn pieces(c: &mut Criterion) {
    let mut pieces = Pieces::new();
    let all: [(&str, Piece); 7] = [
        ("read the head of a request", Pieces::request),
        ("read and match a path", Pieces::route),
        ("digest of a key", Pieces::digest),
        ("decide, 10,000 keys", Pieces::decide),
        ("decide, and write the head for the upstream", Pieces::headers),
        ("read the head of an answer", Pieces::answer),
        ("metrics and access line", Pieces::record),
    ];
    for (name, piece) in all {
        c.bench_function(name, |bench| bench.iter(|| piece(&mut pieces)));
    }
    let mut piped = Piped::new();
    c.bench_function("a frame of 100 bytes there and back through a tunnel, over pipes in memory", |bench| {
        bench.iter(|| piped.echo());
    });
    let mut whole = Whole::new();
    c.bench_function("a whole GET, over loopback, both ends on this thread", |bench| {
        bench.iter(|| whole.ask());
    });
}

criterion_group!(benches, pieces);
criterion_main!(benches);
