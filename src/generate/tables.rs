//! The tables' names and columns, spelt as the published data sets spell them. Knows no rows.

/// How a column's values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text.
    Text,
    /// Whole number of 32 bits.
    Int,
    /// Whole number of 64 bits.
    Long,
    /// Cents, written with two decimals.
    Money,
    /// Seconds of a wall-clock time.
    Wall,
    /// Milliseconds since 1970, UTC.
    Instant,
}

/// A column.
#[derive(Debug)]
pub(super) struct Column {
    /// Name in headers and schemas.
    pub(super) name: &'static str,
    /// How it is written.
    pub(super) kind: Kind,
    /// Whether null occurs.
    pub(super) nullable: bool,
}

/// A table.
#[derive(Debug)]
pub(super) struct Table {
    /// Folder's name.
    pub(super) name: &'static str,
    /// Columns in order.
    pub(super) columns: &'static [Column],
}

const fn some(name: &'static str, kind: Kind) -> Column {
    Column { name, kind, nullable: false }
}

const fn maybe(name: &'static str, kind: Kind) -> Column {
    Column { name, kind, nullable: true }
}

/// `customers`
pub(super) const CUSTOMERS: Table = Table {
    name: "customers",
    columns: &[
        some("customer_id", Kind::Text),
        some("customer_unique_id", Kind::Text),
        some("customer_zip_code_prefix", Kind::Text),
        some("customer_city", Kind::Text),
        some("customer_state", Kind::Text),
    ],
};

/// `sellers`
pub(super) const SELLERS: Table = Table {
    name: "sellers",
    columns: &[
        some("seller_id", Kind::Text),
        some("seller_zip_code_prefix", Kind::Text),
        some("seller_city", Kind::Text),
        some("seller_state", Kind::Text),
    ],
};

/// `products`
pub(super) const PRODUCTS: Table = Table {
    name: "products",
    columns: &[
        some("product_id", Kind::Text),
        maybe("product_category_name", Kind::Text),
        maybe("product_name_lenght", Kind::Int),
        maybe("product_description_lenght", Kind::Int),
        maybe("product_photos_qty", Kind::Int),
        maybe("product_weight_g", Kind::Int),
        maybe("product_length_cm", Kind::Int),
        maybe("product_height_cm", Kind::Int),
        maybe("product_width_cm", Kind::Int),
    ],
};

/// `product_categories`
pub(super) const PRODUCT_CATEGORIES: Table = Table {
    name: "product_categories",
    columns: &[some("product_category_name", Kind::Text), some("product_category_name_english", Kind::Text)],
};

/// `orders`
pub(super) const ORDERS: Table = Table {
    name: "orders",
    columns: &[
        some("order_id", Kind::Text),
        some("customer_id", Kind::Text),
        some("order_status", Kind::Text),
        some("order_purchase_timestamp", Kind::Wall),
        maybe("order_approved_at", Kind::Wall),
        maybe("order_delivered_carrier_date", Kind::Wall),
        maybe("order_delivered_customer_date", Kind::Wall),
        some("order_estimated_delivery_date", Kind::Wall),
    ],
};

/// `items`
pub(super) const ITEMS: Table = Table {
    name: "items",
    columns: &[
        some("order_id", Kind::Text),
        some("order_item_id", Kind::Int),
        some("product_id", Kind::Text),
        some("seller_id", Kind::Text),
        some("shipping_limit_date", Kind::Wall),
        some("price", Kind::Money),
        some("freight_value", Kind::Money),
    ],
};

/// `payments`
pub(super) const PAYMENTS: Table = Table {
    name: "payments",
    columns: &[
        some("order_id", Kind::Text),
        some("payment_sequential", Kind::Int),
        some("payment_type", Kind::Text),
        some("payment_installments", Kind::Int),
        some("payment_value", Kind::Money),
    ],
};

/// `reviews`
pub(super) const REVIEWS: Table = Table {
    name: "reviews",
    columns: &[
        some("review_id", Kind::Text),
        some("order_id", Kind::Text),
        some("review_score", Kind::Int),
        maybe("review_comment_title", Kind::Text),
        maybe("review_comment_message", Kind::Text),
        some("review_creation_date", Kind::Wall),
        some("review_answer_timestamp", Kind::Wall),
    ],
};

/// `events`
pub(super) const EVENTS: Table = Table {
    name: "events",
    columns: &[
        some("event_time", Kind::Instant),
        some("event_type", Kind::Text),
        some("product_id", Kind::Long),
        some("category_id", Kind::Long),
        maybe("category_code", Kind::Text),
        maybe("brand", Kind::Text),
        some("price", Kind::Money),
        some("user_id", Kind::Long),
        some("user_session", Kind::Text),
    ],
};

/// All tables, in the order in which they are told.
pub(super) const ALL: [&Table; 9] =
    [&CUSTOMERS, &SELLERS, &PRODUCTS, &PRODUCT_CATEGORIES, &ORDERS, &ITEMS, &PAYMENTS, &REVIEWS, &EVENTS];
