//! An order's rows in five tables. Knows no format.

use crate::generate::encode::{Fields, Row};
use crate::generate::places::Places;

use super::life::{Item, Order, Payment, Progress, Review};

/// Of `customers`.
pub(super) struct CustomerRow<'a>(pub(super) &'a Order, pub(super) &'a Places);

impl Row for CustomerRow<'_> {
    fn fields(&self, to: &mut impl Fields) {
        let (city, zip) = self.1.at(self.0.home);
        to.hex(self.0.customer_id);
        to.hex(self.0.person_id);
        to.text(Some(&zip));
        to.text(Some(city.name));
        to.text(Some(city.state));
    }
}

/// Of `orders`, at some point of the order's course.
pub(super) struct OrderRow<'a>(pub(super) &'a Order, pub(super) Progress);

impl Row for OrderRow<'_> {
    fn fields(&self, to: &mut impl Fields) {
        to.hex(self.0.id);
        to.hex(self.0.customer_id);
        to.text(Some(self.1.status));
        to.wall(Some(self.0.purchased));
        to.wall(self.1.approved);
        to.wall(self.1.shipped);
        to.wall(self.1.delivered);
        to.wall(Some(self.0.promised));
    }
}

/// Of `items`, with its number in the order.
pub(super) struct ItemRow<'a>(pub(super) &'a Order, pub(super) &'a Item, pub(super) i64);

impl Row for ItemRow<'_> {
    fn fields(&self, to: &mut impl Fields) {
        to.hex(self.0.id);
        to.int(Some(self.2));
        to.hex(self.1.product_id);
        to.hex(self.1.seller_id);
        to.wall(Some(self.1.limit));
        to.money(self.1.price);
        to.money(self.1.freight);
    }
}

/// Of `payments`, with its number in the order.
pub(super) struct PaymentRow<'a>(pub(super) &'a Order, pub(super) &'a Payment, pub(super) i64);

impl Row for PaymentRow<'_> {
    fn fields(&self, to: &mut impl Fields) {
        to.hex(self.0.id);
        to.int(Some(self.2));
        to.text(Some(self.1.kind));
        to.int(Some(self.1.installments));
        to.money(self.1.cents);
    }
}

/// Of `reviews`.
pub(super) struct ReviewRow<'a>(pub(super) &'a Order, pub(super) &'a Review);

impl Row for ReviewRow<'_> {
    fn fields(&self, to: &mut impl Fields) {
        to.hex(self.1.id);
        to.hex(self.0.id);
        to.int(Some(self.1.score));
        to.text(self.1.title);
        to.text(self.1.message);
        to.wall(Some(self.1.asked));
        to.wall(Some(self.1.answered));
    }
}
