//! What an engine failure means to the user: who has to act, and how to go on. Knows no model and no file.

use std::error::Error as StdError;
use std::io;

use arrow::error::ArrowError;
use datafusion::common::DataFusionError;

use crate::error::{Error, ErrorKind};

/// Turns a failure of planning or running into ours. Errors of our own that travelled through the engine come out as they went in.
pub fn failure(error: DataFusionError) -> Error {
    let error = match own(error) {
        Ok(ours) => return ours,
        Err(foreign) => foreign,
    };
    if disk_is_full(&error) {
        return Error::external("no space is left on a disk that the query writes to: free some and run again")
            .caused_by(error);
    }
    let (kind, message) = match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => (
            ErrorKind::External,
            "the query needs more memory than it may use: select fewer rows or columns, or run it where there is more",
        ),
        DataFusionError::SQL(..)
        | DataFusionError::Plan(_)
        | DataFusionError::SchemaError(..)
        | DataFusionError::Configuration(_)
        | DataFusionError::NotImplemented(_)
        | DataFusionError::Substrait(_) => (ErrorKind::Usage, "the query can't be planned"),
        DataFusionError::Internal(_) | DataFusionError::ExecutionJoin(_) | DataFusionError::Ffi(_) => {
            (ErrorKind::Internal, "a bug of Tidemill or of its engine: please report it")
        }
        DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) | DataFusionError::ParquetError(_) => {
            (ErrorKind::External, "data can't be read or written")
        }
        root if is_of_values(root) => (ErrorKind::Data, "the query failed on its data"),
        _ => (ErrorKind::External, "the query failed on its data"),
    };
    Error::new(kind, message).caused_by(without_internals(error))
}

/// Whether other values in the same place would have been no failure. Functions tell of such as failures of execution.
fn is_of_values(root: &DataFusionError) -> bool {
    match root {
        DataFusionError::ArrowError(error, _) => matches!(
            error.as_ref(),
            ArrowError::CastError(_)
                | ArrowError::ParseError(_)
                | ArrowError::ComputeError(_)
                | ArrowError::InvalidArgumentError(_)
                | ArrowError::ArithmeticOverflow(_)
                | ArrowError::DivideByZero
        ),
        DataFusionError::Execution(_) => true,
        _ => false,
    }
}

/// Our own error inside `error`, or `error` back.
fn own(error: DataFusionError) -> Result<Error, DataFusionError> {
    match error {
        DataFusionError::External(inner) => match inner.downcast::<Error>() {
            Ok(ours) => Ok(*ours),
            Err(inner) => match inner.downcast::<DataFusionError>() {
                Ok(nested) => own(*nested),
                Err(inner) => Err(DataFusionError::External(inner)),
            },
        },
        DataFusionError::ArrowError(inner, trace) => match *inner {
            ArrowError::ExternalError(inner) => own(DataFusionError::External(inner)),
            other => Err(DataFusionError::ArrowError(Box::new(other), trace)),
        },
        DataFusionError::Context(text, inner) => own(*inner).map_err(|e| e.context(text)),
        DataFusionError::Diagnostic(diagnostic, inner) => {
            own(*inner).map_err(|e| DataFusionError::Diagnostic(diagnostic, Box::new(e)))
        }
        DataFusionError::Shared(inner) => match std::sync::Arc::try_unwrap(inner) {
            Ok(inner) => own(inner),
            Err(shared) => match ours_within(&*shared) {
                // Another partition still holds the original: say the same once more.
                Some(ours) => Ok(Error::new(ours.kind(), ours.to_string())),
                None => Err(DataFusionError::Shared(shared)),
            },
        },
        other => Err(other),
    }
}

fn ours_within<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(ours) = error.downcast_ref::<Error>() {
            return Some(ours);
        }
        next = error.source();
    }
    None
}

fn disk_is_full(error: &DataFusionError) -> bool {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)) {
            return true;
        }
        next = error.source();
    }
    false
}

/// The engine's own words, without what it says for its developers: which of its rules noticed, and a backtrace.
fn without_internals(error: DataFusionError) -> String {
    match error {
        DataFusionError::Context(text, inner) if text.starts_with("Optimizer rule") => without_internals(*inner),
        other => other.strip_backtrace(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn our_own_errors_come_back_whole_through_any_wrapping() {
        let wrapped = |e: Error| DataFusionError::External(Box::new(e)).context("while scanning");
        let ours =
            failure(wrapped(Error::new(ErrorKind::Check, "three rows break the contract").with("source", "orders")));
        assert_eq!(ours.kind(), ErrorKind::Check);
        assert_eq!(ours.context(), [("source", "orders".to_string())]);

        let shared = Arc::new(wrapped(Error::new(ErrorKind::Lease, "fenced")));
        let first = failure(DataFusionError::Shared(Arc::clone(&shared)));
        assert_eq!((first.kind(), first.to_string()), (ErrorKind::Lease, "fenced".to_string()));
        assert_eq!(failure(DataFusionError::Shared(shared)).kind(), ErrorKind::Lease);

        let arrow = ArrowError::ExternalError(Box::new(Error::usage("no such file")));
        assert_eq!(failure(arrow.into()).to_string(), "no such file");
    }

    #[test]
    fn kinds_say_who_has_to_act() {
        assert_eq!(failure(DataFusionError::Plan("x".into())).kind(), ErrorKind::Usage);
        assert_eq!(failure(DataFusionError::Internal("x".into())).kind(), ErrorKind::Internal);
        assert_eq!(failure(ArrowError::DivideByZero.into()).kind(), ErrorKind::Data);
        let io = io::Error::from(io::ErrorKind::NotFound);
        assert_eq!(failure(ArrowError::IoError("x".into(), io).into()).kind(), ErrorKind::External);
        let memory = failure(DataFusionError::ResourcesExhausted("sort wanted 9 MB".into()).context("sorting"));
        assert!(memory.to_string().starts_with("the query needs more memory"), "{memory}");
        assert!(memory.to_string().contains("sort wanted 9 MB"), "{memory}");
    }

    #[test]
    fn which_rule_of_the_engine_noticed_is_nobodys_concern() {
        let cast = || DataFusionError::from(ArrowError::CastError("no number: 'x'".into()));
        let noticed = failure(cast().context("Optimizer rule 'simplify_expressions' failed"));
        assert_eq!((noticed.kind(), noticed.to_string()), (ErrorKind::Data, failure(cast()).to_string()));
    }

    #[test]
    fn a_full_disk_is_named_however_deep_it_hides() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let store = datafusion::object_store::Error::Generic { store: "LocalFileSystem", source: Box::new(full) };
        let error = failure(DataFusionError::ObjectStore(Box::new(store)).context("spilling"));
        assert!(error.to_string().starts_with("no space is left"), "{error}");
    }
}
