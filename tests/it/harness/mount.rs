//! A folder as the kubelet mounts it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// Files are links through `..data`, which is swapped; those that are no more are unlinked then.
pub fn mount(folder: &Path, version: &str, files: &[(&str, &str)]) {
    let data = format!("..{version}");
    fs::create_dir_all(folder.join(&data)).expect("a folder");
    for (name, text) in files {
        fs::write(folder.join(&data).join(name), text).expect("a file");
        if !folder.join(name).is_symlink() {
            symlink(Path::new("..data").join(name), folder.join(name)).expect("a link");
        }
    }
    let before = fs::read_link(folder.join("..data"));
    symlink(&data, folder.join("..data_tmp")).expect("a link");
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).expect("a rename");
    if let Ok(before) = before {
        fs::remove_dir_all(folder.join(before)).expect("the version before");
    }
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_symlink() && !path.exists() {
            fs::remove_file(path).expect("a link");
        }
    }
}
