//! Which small files are put together. Knows sizes, and no file.

use std::collections::BTreeMap;

use crate::limits;

/// The positions of files to be written anew as one: small ones of about the same size, once there are many of them. Each row
/// is written anew as often as the size that it stands in grows by a class, and none for the sake of a few new ones.
pub fn crowded(sizes: impl IntoIterator<Item = u64>) -> Vec<usize> {
    let mut classes: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (at, bytes) in sizes.into_iter().enumerate().filter(|(_, bytes)| *bytes < limits::SMALL_FILE_BYTES) {
        classes.entry(bytes.max(1).ilog2() / limits::SMALL_FILE_CLASS_BITS).or_default().push(at);
    }
    classes.into_values().find(|files| files.len() >= limits::SMALL_FILES).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_written_anew_a_few_times_and_files_stay_few() {
        let (mut files, mut written, mut most) = (Vec::new(), 0, 0);
        const STEPS: u64 = 5_000;
        for _ in 0..STEPS {
            files.push(50_000);
            let together = crowded(files.iter().copied());
            if !together.is_empty() {
                let bytes: u64 = together.iter().map(|at| files[*at]).sum();
                let mut at = 0;
                files.retain(|_| {
                    at += 1;
                    !together.contains(&(at - 1))
                });
                files.push(bytes);
                written += bytes;
            }
            most = most.max(files.iter().filter(|bytes| **bytes < limits::SMALL_FILE_BYTES).count());
        }
        assert!(written <= 4 * STEPS * 50_000, "each byte {} times", written / STEPS / 50_000);
        assert!(written > STEPS * 50_000 && most < 4 * limits::SMALL_FILES, "{most} small files");
        assert!(crowded([limits::SMALL_FILE_BYTES; 100]).is_empty());
    }
}
