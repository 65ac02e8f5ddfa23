//! What a function of ours that stands for one of the engine's answers as that does: the engine's can't be inherited from. Knows no function.

/// The answers of an `AggregateUDFImpl` that are those of its field `engine`.
macro_rules! as_engine {
    () => {
        fn name(&self) -> &str {
            self.engine.name()
        }

        fn aliases(&self) -> &[String] {
            self.engine.aliases()
        }

        fn schema_name(&self, params: &::datafusion::logical_expr::expr::AggregateFunctionParams) -> Result<String> {
            self.engine.schema_name(params)
        }

        fn display_name(&self, params: &::datafusion::logical_expr::expr::AggregateFunctionParams) -> Result<String> {
            self.engine.display_name(params)
        }

        fn window_function_schema_name(
            &self,
            params: &::datafusion::logical_expr::expr::WindowFunctionParams,
        ) -> Result<String> {
            self.engine.window_function_schema_name(params)
        }

        fn window_function_display_name(
            &self,
            params: &::datafusion::logical_expr::expr::WindowFunctionParams,
        ) -> Result<String> {
            self.engine.window_function_display_name(params)
        }

        fn signature(&self) -> &::datafusion::logical_expr::Signature {
            self.engine.signature()
        }

        fn return_type(&self, arg_types: &[::arrow::datatypes::DataType]) -> Result<::arrow::datatypes::DataType> {
            self.engine.return_type(arg_types)
        }

        fn return_field(&self, arg_fields: &[::arrow::datatypes::FieldRef]) -> Result<::arrow::datatypes::FieldRef> {
            self.engine.return_field(arg_fields)
        }

        fn is_nullable(&self) -> bool {
            self.engine.is_nullable()
        }

        fn accumulator(
            &self,
            args: ::datafusion::logical_expr::function::AccumulatorArgs,
        ) -> Result<Box<dyn ::datafusion::logical_expr::Accumulator>> {
            self.engine.accumulator(args)
        }

        fn state_fields(
            &self,
            args: ::datafusion::logical_expr::function::StateFieldsArgs,
        ) -> Result<Vec<::arrow::datatypes::FieldRef>> {
            self.engine.state_fields(args)
        }

        fn order_sensitivity(&self) -> ::datafusion::logical_expr::utils::AggregateOrderSensitivity {
            self.engine.order_sensitivity()
        }

        fn coerce_types(
            &self,
            arg_types: &[::arrow::datatypes::DataType],
        ) -> Result<Vec<::arrow::datatypes::DataType>> {
            self.engine.coerce_types(arg_types)
        }

        fn default_value(&self, data_type: &::arrow::datatypes::DataType) -> Result<::datafusion::common::ScalarValue> {
            self.engine.default_value(data_type)
        }

        fn documentation(&self) -> Option<&::datafusion::logical_expr::Documentation> {
            self.engine.documentation()
        }

        fn set_monotonicity(
            &self,
            data_type: &::arrow::datatypes::DataType,
        ) -> ::datafusion::logical_expr::SetMonotonicity {
            self.engine.inner().set_monotonicity(data_type)
        }
    };
}

pub(super) use as_engine;
