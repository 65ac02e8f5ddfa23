//! What small files that never change were read as lately, so that a process that goes on reads each once. Knows nothing of what
//! is in them.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use object_store::ObjectMeta;

use crate::limits;

/// Files and what they were read as, the last ones that were asked for. Clones share what they know.
#[derive(Clone, Default)]
pub struct Parsed(Arc<Mutex<VecDeque<Known>>>);

struct Known {
    meta: ObjectMeta,
    content: Arc<dyn Any + Send + Sync>,
}

impl Parsed {
    /// What the file was read as, if it is still the one that was read.
    pub(super) fn get<T: Send + Sync + 'static>(&self, meta: &ObjectMeta) -> Option<Arc<T>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = known.iter().position(|known| known.meta == *meta)?;
        let found = known.remove(at)?;
        let content = Arc::clone(&found.content);
        known.push_back(found);
        content.downcast().ok()
    }

    /// Remembers what the file was read as.
    pub(super) fn keep<T: Send + Sync + 'static>(&self, meta: ObjectMeta, content: &Arc<T>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|known| known.meta.location != meta.location);
        let content: Arc<dyn Any + Send + Sync> = Arc::<T>::clone(content);
        known.push_back(Known { meta, content });
        while known.len() > limits::PARSED_FILES {
            known.pop_front();
        }
    }
}

impl fmt::Debug for Parsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_list().entries(known.iter().map(|known| &known.meta.location)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(path: &str, size: u64) -> ObjectMeta {
        ObjectMeta {
            location: path.into(),
            last_modified: chrono::DateTime::UNIX_EPOCH,
            size,
            e_tag: None,
            version: None,
        }
    }

    #[test]
    fn a_file_that_was_replaced_is_not_known() {
        let parsed = Parsed::default();
        parsed.keep(meta("a", 1), &Arc::new("one".to_owned()));
        assert_eq!(parsed.get::<String>(&meta("a", 1)).as_deref().map(String::as_str), Some("one"));
        assert!(parsed.get::<String>(&meta("a", 2)).is_none());
        for n in 0..limits::PARSED_FILES as u64 {
            parsed.keep(meta(&format!("b{n}"), n), &Arc::new(n));
        }
        assert!(parsed.get::<String>(&meta("a", 1)).is_none(), "the oldest goes");
        assert_eq!(parsed.get::<u64>(&meta("b0", 0)).as_deref(), Some(&0));
    }
}
