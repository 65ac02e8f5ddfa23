//! Sums, means and variances of floats over frames that move. The engine subtracts what leaves a frame, which leaves something behind: a NaN
//! for good, of a large number its rounding, and variances below 0. Here nothing is subtracted. Knows no plans.
//!
//! A frame is a queue of two stacks, as in Tangwongsan et al., "General Incremental Sliding-Window Aggregation", VLDB 2015; what is known of
//! two parts is merged by Chan et al., "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{DFSchema, Result, ScalarValue, internal_err};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ExprSchemable, ReversedUDAF, WindowFunctionDefinition,
};

use super::as_engine::as_engine;

/// The function that stands for that of `call`, where its frame's first row moves and its values are floats.
pub fn moving(call: &WindowFunction, input: &DFSchema) -> Option<Arc<AggregateUDF>> {
    let WindowFunctionDefinition::AggregateUDF(engine) = &call.fun else { return None };
    let ([arg], false) = (call.params.args.as_slice(), call.params.distinct) else { return None };
    let is_ours = (engine.inner().as_ref() as &dyn Any).is::<Moving>();
    let stands = call.params.window_frame.start_bound.is_unbounded();
    let is_float = arg.get_type(input).is_ok_and(|of| of == DataType::Float64);
    let value = Value::of(engine.name()).filter(|_| is_float && !is_ours && !stands)?;
    Some(Arc::new(AggregateUDF::from(Moving { engine: Arc::clone(engine), value })))
}

/// What is told of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Value {
    Sum,
    Mean,
    Variance { is_sample: bool, is_root: bool },
}

impl Value {
    fn of(function: &str) -> Option<Self> {
        Some(match function {
            "sum" => Self::Sum,
            "avg" => Self::Mean,
            "var" => Self::Variance { is_sample: true, is_root: false },
            "var_pop" => Self::Variance { is_sample: false, is_root: false },
            "stddev" => Self::Variance { is_sample: true, is_root: true },
            "stddev_pop" => Self::Variance { is_sample: false, is_root: true },
            _ => return None,
        })
    }

    fn told(self, of: Moments) -> Option<f64> {
        match self {
            _ if of.count == 0.0 => None,
            Self::Sum => Some(of.sum),
            Self::Mean => Some(of.sum / of.count),
            Self::Variance { is_sample: true, .. } if of.count == 1.0 => None,
            Self::Variance { is_sample, is_root } => {
                let variance = of.squares / if is_sample { of.count - 1.0 } else { of.count };
                Some(if is_root { variance.sqrt() } else { variance })
            }
        }
    }
}

/// The engine's function, but over frames that move.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Moving {
    engine: Arc<AggregateUDF>,
    value: Value,
}

impl AggregateUDFImpl for Moving {
    as_engine!();

    fn create_sliding_accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Frame { value: self.value, front: Vec::new(), back: VecDeque::new(), of_back: Moments::default() }))
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.engine.reverse_udf()
    }
}

/// What is known of some values: how many they are, their sum and mean, and the sum of squares of what they differ from the mean.
#[derive(Debug, Clone, Copy, Default)]
struct Moments {
    count: f64,
    sum: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn of(value: f64) -> Self {
        Self { count: 1.0, sum: value, mean: value, squares: 0.0 }
    }

    fn and(self, other: Self) -> Self {
        if self.count == 0.0 || other.count == 0.0 {
            return if self.count == 0.0 { other } else { self };
        }
        let count = self.count + other.count;
        let apart = other.mean - self.mean;
        Self {
            count,
            sum: self.sum + other.sum,
            mean: self.mean + apart * (other.count / count),
            squares: self.squares + other.squares + apart * apart * (self.count * other.count / count),
        }
    }
}

/// The rows of a frame, first come, first gone.
#[derive(Debug)]
struct Frame {
    value: Value,
    /// Of each row of the older part, the oldest last: what is known of it and of those of this part behind it.
    front: Vec<Moments>,
    /// Values of the newer part, null or not.
    back: VecDeque<Option<f64>>,
    of_back: Moments,
}

impl Accumulator for Frame {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let [values] = values else { return internal_err!("a moving frame is of one argument") };
        for value in cast(values, &DataType::Float64)?.as_primitive::<Float64Type>() {
            self.back.push_back(value);
            self.of_back = self.of_back.and(value.map(Moments::of).unwrap_or_default());
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for _ in 0..values.first().map_or(0, |values| values.len()) {
            if self.front.is_empty() {
                let mut known = Moments::default();
                while let Some(value) = self.back.pop_back() {
                    known = value.map(Moments::of).unwrap_or_default().and(known);
                    self.front.push(known);
                }
                self.of_back = Moments::default();
            }
            if self.front.pop().is_none() {
                return internal_err!("a row leaves a frame that it isn't in");
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let of_front = self.front.last().copied().unwrap_or_default();
        Ok(ScalarValue::Float64(self.value.told(of_front.and(self.of_back))))
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn size(&self) -> usize {
        size_of_val(self)
            + self.front.capacity() * size_of::<Moments>()
            + self.back.capacity() * size_of::<Option<f64>>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        internal_err!("a moving frame isn't merged")
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> Result<()> {
        internal_err!("a moving frame isn't merged")
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Float64Array;

    use super::*;

    /// What is told of each frame of `width` rows.
    fn told(function: &str, values: &[Option<f64>], width: usize) -> Vec<Option<f64>> {
        let value = Value::of(function).unwrap();
        let mut frame = Frame { value, front: Vec::new(), back: VecDeque::new(), of_back: Moments::default() };
        let one = |at: usize| -> Vec<ArrayRef> { vec![Arc::new(Float64Array::from(vec![values[at]]))] };
        let step = |at: usize| {
            frame.update_batch(&one(at)).unwrap();
            if at >= width {
                frame.retract_batch(&one(at - width)).unwrap();
            }
            let ScalarValue::Float64(value) = frame.evaluate().unwrap() else { panic!("no double") };
            value
        };
        (0..values.len()).map(step).collect()
    }

    #[test]
    fn what_leaves_a_frame_leaves_nothing_behind() {
        let all = |values: &[f64]| values.iter().copied().map(Some).collect::<Vec<_>>();
        let equal = all(&[9.0, 8.0, 5.0, 5.0, 5.0]);
        assert_eq!(told("stddev", &equal, 2)[3..], [Some(0.0), Some(0.0)]);
        assert_eq!(told("var", &equal, 2)[..3], [None, Some(0.5), Some(4.5)]);
        let large = all(&[1e17, 1.0, 2.0, 3.0]);
        assert_eq!(told("sum", &large, 2)[2..], [Some(3.0), Some(5.0)]);
        assert_eq!(told("avg", &large, 2)[2..], [Some(1.5), Some(2.5)]);
        for gone in [f64::NAN, f64::INFINITY] {
            assert_eq!(told("sum", &all(&[gone, 1.0, 2.0, 3.0]), 2)[2..], [Some(3.0), Some(5.0)]);
            assert_eq!(told("stddev_pop", &all(&[gone, 1.0, 1.0, 3.0]), 2)[2..], [Some(0.0), Some(1.0)]);
        }
    }

    #[test]
    fn nulls_stand_in_a_frame_and_count_for_nothing() {
        let values = [None, Some(1.0), None, None, Some(4.0), Some(6.0)];
        assert_eq!(told("sum", &values, 2), [None, Some(1.0), Some(1.0), None, Some(4.0), Some(10.0)]);
        assert_eq!(told("var_pop", &values, 2), [None, Some(0.0), Some(0.0), None, Some(0.0), Some(1.0)]);
        assert_eq!(told("var", &values, 2), [None, None, None, None, None, Some(2.0)]);
    }
}
