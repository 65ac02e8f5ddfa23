//! A join that keeps the rows of one side, where rows only came to the other: what they meet there changes nothing for a row that had
//! a partner already, but for the pairs themselves. So the other side is only asked who had none. Knows no other case.

use datafusion::common::JoinType;
use datafusion::logical_expr::{Join, LogicalPlan};

use super::delta::{Delta, all_of, in_memory, named_as, weighing};
use super::derive::{nothing, without_weight};
use super::join::{Side, joined_as, rejoined};
use super::{Engine, Version};
use crate::engine::failure;
use crate::error::Result;

impl Engine<'_> {
    /// How the join changes by `came`, rows that came to the looked-up side: `rows` are those of the kept side, as they are now, that
    /// may meet one; `before` has the looked-up side's rows of their keys as they were, where they are at hand.
    pub(super) async fn first_partners(
        &self,
        (join, kept): (&Join, Side),
        rows: LogicalPlan,
        came: &Delta,
        before: Option<LogicalPlan>,
    ) -> Result<Option<Delta>> {
        let (semi, anti) = match kept {
            Side::Left => (JoinType::LeftSemi, JoinType::LeftAnti),
            Side::Right => (JoinType::RightSemi, JoinType::RightAnti),
        };
        let came = without_weight(came.plan.clone()).map_err(failure)?;
        let met = joined_as(join, semi, kept, rows, came.clone()).map_err(failure)?;
        let Some(met) = self.in_memory_as(met, kept.of(join)).await? else { return Ok(None) };
        let before = match before {
            Some(before) => before,
            None => {
                let plan = weighing(met.clone(), 1).map_err(failure)?;
                let met = Delta { plan, insert_only: true, is_settled: true };
                self.partners(join, kept, &met, Version::Old).await?
            }
        };
        let first = joined_as(join, anti, kept, met.clone(), before).map_err(failure)?;
        let first = self.in_memory_as(first, kept.of(join)).await?;
        let is_padded = matches!(join.join_type, JoinType::Left | JoinType::Right);
        let mut parts = Vec::new();
        if is_padded {
            parts.push((joined_as(join, JoinType::Inner, kept, met, came.clone()), 1));
        }
        if let Some(first) = first {
            if !is_padded && !is_anti(join.join_type) {
                parts.push((rejoined(join, kept, first.clone(), came), 1));
            }
            if !is_semi(join.join_type) {
                parts.push((rejoined(join, kept, first, nothing(kept.other().of(join).schema())), -1));
            }
        }
        let insert_only = parts.iter().all(|(_, each)| *each == 1);
        let weighed = parts.into_iter().map(|(plan, each)| weighing(named_as(plan?, &join.schema, false)?, each));
        let plan = weighed.collect::<datafusion::common::Result<Vec<_>>>().and_then(all_of).map_err(failure)?;
        Ok(plan.map(|plan| Delta { plan, insert_only, is_settled: false }))
    }

    /// The rows of `plan` in memory, with the columns of `like`; none where there are none.
    async fn in_memory_as(&self, plan: LogicalPlan, like: &LogicalPlan) -> Result<Option<LogicalPlan>> {
        let held = in_memory(&self.collect(plan).await?)?;
        held.map(|held| named_as(held, like.schema(), false).map_err(failure)).transpose()
    }
}

fn is_semi(join_type: JoinType) -> bool {
    matches!(join_type, JoinType::LeftSemi | JoinType::RightSemi)
}

fn is_anti(join_type: JoinType) -> bool {
    matches!(join_type, JoinType::LeftAnti | JoinType::RightAnti)
}
