//! How far a pipeline's commits are written through to the disk, where their being there doesn't say so: continuous work has its steps
//! seen at once and syncs them beside the next ones. A process that dies takes nothing with it, since what it wrote is the system's by
//! then; what a power cut may have left half there is taken back to the last commit that is sure. Knows no rows.

use std::sync::OnceLock;

use crate::error::{Result, ResultExt};
use crate::table::{BOOKKEEPING, Warehouse};

/// The last commit that is sure of those that one writer puts under one boot of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) n: u64,
    pub(super) boot: String,
    /// Another's later commit is sure, and all before it: who takes a pipeline over makes sure of what is there first.
    pub(super) writer: String,
}

impl Mark {
    /// Whether the machine has gone on since, so that all that was written is there.
    pub(super) fn is_of_this_boot(&self) -> bool {
        boot() == Some(self.boot.as_str())
    }
}

/// What tells one boot of the machine from others; none where the system doesn't say.
pub(super) fn boot() -> Option<&'static str> {
    static BOOT: OnceLock<Option<String>> = OnceLock::new();
    let read = || {
        let told = match std::env::var("TIDEMILL_BOOT") {
            // For tests, which can't boot.
            Ok(told) if cfg!(debug_assertions) => told,
            _ => std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?,
        };
        Some(told.trim().to_string()).filter(|told| !told.is_empty() && !told.contains(['.', '/']))
    };
    BOOT.get_or_init(read).as_deref()
}

/// The marks of a pipeline: files that have nothing but a name, `<n>.<boot>.<writer>`. The highest counts; a writer that was paused past
/// its lease may leave one that is lower.
pub(super) struct Marks<'a> {
    warehouse: &'a Warehouse,
    folder: String,
}

impl<'a> Marks<'a> {
    pub(super) fn of(warehouse: &'a Warehouse, pipeline: &str) -> Self {
        Self { warehouse, folder: format!("{BOOKKEEPING}/{pipeline}/synced") }
    }

    /// The highest one; none where each commit that is there is sure.
    ///
    /// # Errors
    /// External: the folder can't be read.
    pub(super) fn last(&self) -> Result<Option<Mark>> {
        Ok(self.all()?.into_iter().max_by_key(|(mark, _)| mark.n).map(|(mark, _)| mark))
    }

    fn all(&self) -> Result<Vec<(Mark, String)>> {
        if !self.warehouse.is_local {
            return Ok(vec![]);
        }
        let entries = match std::fs::read_dir(self.warehouse.file(&self.folder)?) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
            entries => entries.external("what is written through can't be told")?,
        };
        let mut marks = Vec::new();
        for entry in entries {
            let entry = entry.external("what is written through can't be told")?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if let [n, boot, writer] = name.split('.').collect::<Vec<_>>().as_slice()
                && let Ok(n) = n.parse()
                && !writer.contains('#')
            {
                let mark = Mark { n, boot: (*boot).to_string(), writer: (*writer).to_string() };
                marks.push((mark, format!("{}/{name}", self.folder)));
            }
        }
        Ok(marks)
    }

    /// Says that commits up to its number are sure, and later ones of its writer may not be.
    ///
    /// # Errors
    /// External: the store.
    pub(super) async fn set(&self, mark: &Mark) -> Result<()> {
        let before = self.all()?.into_iter().filter(|(before, _)| before.writer == mark.writer);
        let name = format!("{}/{:020}.{}.{}", self.folder, mark.n, mark.boot, mark.writer);
        self.warehouse.put_new(&name, bytes::Bytes::new()).await?;
        self.delete(before.map(|(_, path)| path).filter(|path| *path != name).collect()).await
    }

    /// Says that each commit that is there is sure, of a writer or of all.
    ///
    /// # Errors
    /// External: the store.
    pub(super) async fn clear(&self, writer: Option<&str>) -> Result<()> {
        let gone = self.all()?.into_iter().filter(|(mark, _)| writer.is_none_or(|writer| writer == mark.writer));
        let gone: Vec<String> = gone.map(|(_, path)| path).collect();
        if gone.is_empty() {
            return Ok(());
        }
        self.delete(gone).await?;
        // A mark that came back would take later commits away.
        self.warehouse.sync_folder(&self.folder).await
    }

    async fn delete(&self, paths: Vec<String>) -> Result<()> {
        self.warehouse.delete(paths.iter().map(|path| self.warehouse.path(path)).collect()).await
    }
}
