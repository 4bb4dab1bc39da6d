//! What the fuzzers have found, and what they began with, is tried once more; `fuzz/README.md` has how to look for more.

use std::fs;
use std::path::Path;

#[path = "../../fuzz/src/lib.rs"]
mod fuzz;

#[test]
fn every_seed_of_the_fuzzers_holds() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, target) in fuzz::TARGETS {
        let seeds = fs::read_dir(corpora.join(name)).expect("a corpus");
        let seeds: Vec<_> = seeds.map(|seed| seed.expect("an entry").path()).collect();
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for seed in seeds {
            // Shown where the next line panics.
            println!("{}", seed.display());
            target(&fs::read(seed).expect("a seed"));
        }
    }
}
