//! What becomes of one purchase: its items, payments, delivery and review, as far as they are known when the period ends.

use crate::generate::catalog::Catalog;
use crate::generate::draw::Stream;
use crate::generate::people::Purchase;
use crate::generate::rhythm::DAY;

const HOUR: i64 = 3_600;

/// Share of orders whose customer stands in no file of `customers`.
const UNLISTED_CUSTOMERS: f64 = 0.002;

/// Share of another product in an order that goes with the one before it, rather than only near it in price.
const COMPANIONS: f64 = 0.5;

/// An order and all that hangs on it.
pub(super) struct Order {
    /// Identifier.
    pub(super) id: u128,
    /// Identifier of its customer, of this order only.
    pub(super) customer_id: u128,
    /// Identifier of the person.
    pub(super) person_id: u128,
    /// Random bits of where they live.
    pub(super) home: u64,
    /// Whether the customer has a row.
    pub(super) is_customer_listed: bool,
    /// `order_status`.
    pub(super) status: &'static str,
    /// Wall-clock seconds since 1970.
    pub(super) purchased: i64,
    /// When it was paid.
    pub(super) approved: Option<i64>,
    /// When the carrier had it.
    pub(super) shipped: Option<i64>,
    /// When the customer had it.
    pub(super) delivered: Option<i64>,
    /// When it was promised.
    pub(super) promised: i64,
    /// Units.
    pub(super) items: Vec<Item>,
    /// Payments; their sum is that of prices and freight.
    pub(super) payments: Vec<Payment>,
    /// What the customer said.
    pub(super) review: Option<Review>,
}

/// One unit.
pub(super) struct Item {
    /// Identifier of the product.
    pub(super) product_id: u128,
    /// Identifier of the seller.
    pub(super) seller_id: u128,
    /// When it must have been handed over.
    pub(super) limit: i64,
    /// Cents.
    pub(super) price: i64,
    /// Cents.
    pub(super) freight: i64,
}

/// One payment.
pub(super) struct Payment {
    /// `payment_type`.
    pub(super) kind: &'static str,
    /// Instalments.
    pub(super) installments: i64,
    /// Cents.
    pub(super) cents: i64,
}

/// A review.
pub(super) struct Review {
    /// Identifier.
    pub(super) id: u128,
    /// From 1 to 5.
    pub(super) score: i64,
    /// Title.
    pub(super) title: Option<&'static str>,
    /// Text.
    pub(super) message: Option<&'static str>,
    /// Midnight of the day of asking.
    pub(super) asked: i64,
    /// When it was answered.
    pub(super) answered: i64,
}

/// How far an order has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    /// `order_status`.
    pub(super) status: &'static str,
    /// When it was paid.
    pub(super) approved: Option<i64>,
    /// When the carrier had it.
    pub(super) shipped: Option<i64>,
    /// When the customer had it.
    pub(super) delivered: Option<i64>,
}

impl Order {
    /// What is known of it when the period ends.
    pub(super) fn progress(&self) -> Progress {
        let Self { status, approved, shipped, delivered, .. } = *self;
        Progress { status, approved, shipped, delivered }
    }

    /// When something becomes known of it, and what is known then: the last is what is known when the period ends.
    #[cfg(feature = "kafka")]
    pub(super) fn course(&self) -> Vec<(i64, Progress)> {
        let at = Some(self.purchased);
        let steps = [(at, "created"), (self.approved, "approved"), (self.shipped, "shipped"), (self.delivered, "")];
        let mut course = Vec::with_capacity(steps.len());
        for (at, status) in steps {
            let Some(at) = at else { continue };
            let known = |time: Option<i64>| time.filter(|time| *time <= at);
            let (approved, shipped) = (known(self.approved), known(self.shipped));
            course.push((at, Progress { status, approved, shipped, delivered: None }));
        }
        if let Some((_, last)) = course.last_mut() {
            *last = self.progress();
        }
        course
    }

    /// Plays the order of a purchase; `start` and `end` are those of the period, and nothing after `end` is known.
    pub(super) fn new(
        seed: u64,
        purchase: &Purchase,
        start: i64,
        end: i64,
        catalog: &Catalog,
        stream: &mut Stream,
    ) -> Self {
        let purchased = start + i64::from(purchase.at);
        let mut order = Self {
            id: purchase.order_id(seed),
            customer_id: purchase.customer_id(seed),
            person_id: purchase.person_id(seed),
            home: purchase.home(seed),
            is_customer_listed: !stream.chance(UNLISTED_CUSTOMERS),
            status: "delivered",
            purchased,
            approved: None,
            shipped: None,
            delivered: None,
            promised: (purchased.div_euclid(DAY) + stream.between(12, 32)) * DAY,
            items: items(purchase, purchased, catalog, stream),
            payments: Vec::new(),
            review: None,
        };
        order.deliver(end, stream);
        let due = order.items.iter().map(|i| i.price + i.freight).sum();
        order.payments = payments(due, stream);
        if order.status == "unavailable" || (order.status == "canceled" && stream.chance(0.25)) {
            // What can't be had was never put into the order, though it was paid.
            order.items.clear();
        }
        order.review = order.ask(end, stream);
        order
    }

    /// Sets times and status.
    fn deliver(&mut self, end: i64, stream: &mut Stream) {
        let paid = self.purchased + 300 + stream.exponential(9.0 * HOUR as f64) as i64;
        let shipped = paid + 6 * HOUR + stream.gamma(1.3, 1.9 * DAY as f64) as i64;
        let delivered = shipped + 12 * HOUR + stream.gamma(2.2, 3.9 * DAY as f64) as i64;
        let fate = stream.unit();
        let known = |at: i64| (at < end).then_some(at);
        self.approved = known(paid);
        if fate < 0.007 {
            self.status = "canceled";
            self.shipped = known(shipped).filter(|_| stream.chance(0.15));
            return;
        }
        if fate < 0.013 {
            self.status = "unavailable";
            return;
        }
        if self.approved.is_none() {
            self.status = "created";
            return;
        }
        if fate < 0.016 {
            self.status = "invoiced";
            return;
        }
        self.shipped = known(shipped);
        if self.shipped.is_none() {
            self.status = if fate < 0.3 { "invoiced" } else { "processing" };
            return;
        }
        self.delivered = known(delivered).filter(|_| fate >= 0.024);
        if self.delivered.is_none() {
            self.status = "shipped";
        }
    }

    /// Most delivered orders are reviewed; who waited beyond the promise is angry.
    fn ask(&self, end: i64, stream: &mut Stream) -> Option<Review> {
        let (share, after) = match (self.delivered, self.status) {
            (Some(delivered), _) => (0.93, delivered),
            (None, "canceled" | "unavailable") => (0.6, self.promised),
            _ => (0.0, self.promised),
        };
        let asked = (after.div_euclid(DAY) + 1) * DAY;
        let answered = asked + 6 * HOUR + stream.exponential(2.2 * DAY as f64) as i64;
        let is_angry = self.delivered.is_none_or(|d| d > self.promised);
        let mood = stream.unit();
        let score = match (is_angry, mood) {
            (true, m) if m < 0.62 => 1,
            (true, m) if m < 0.72 => 2,
            (false, m) if m < 0.06 => 1,
            (false, m) if m < 0.09 => 2,
            (_, m) if m < 0.17 || (is_angry && m < 0.83) => 3,
            (_, m) if m < 0.38 || (is_angry && m < 0.92) => 4,
            _ => 5,
        };
        let words: &[(&str, &str)] = if score >= 4 { &PRAISE } else { &COMPLAINT };
        let title = stream.chance(0.12).then(|| stream.one_of(words).0);
        let message = stream.chance(if score >= 4 { 0.35 } else { 0.7 }).then(|| stream.one_of(words).1);
        let id = stream.id();
        let is_given = stream.chance(share) && answered < end;
        is_given.then_some(Review { id, score, title, message, asked, answered })
    }
}

/// Products whose prices come near what is to be spent, sometimes several of one.
fn items(purchase: &Purchase, purchased: i64, catalog: &Catalog, stream: &mut Stream) -> Vec<Item> {
    let budget = f64::from(purchase.cents);
    let units = (1 + stream.geometric(0.86)).min(20);
    let each = budget / units as f64;
    let limit = purchased + stream.between(4, 8) * DAY;
    let mut items = Vec::with_capacity(units as usize);
    let mut index = catalog.of_price(each, stream);
    for unit in 0..units {
        if unit > 0 && stream.chance(0.45) {
            index = match stream.chance(COMPANIONS) {
                true => catalog.companion(index, stream),
                false => catalog.of_price(each * (0.6 + 0.8 * stream.unit()), stream),
            };
        }
        let full = catalog.product(index).price;
        // Now and then something is on sale.
        let price = if stream.chance(0.06) { full * 9 / 10 } else { full };
        let freight = 750 + (stream.gamma(1.6, 620.0) + 0.02 * price as f64) as i64;
        let freight = if stream.chance(0.004) { 0 } else { freight };
        let (product_id, seller_id) = (catalog.product_id(index), catalog.seller_id(index, stream));
        items.push(Item { product_id, seller_id, limit, price, freight });
    }
    items
}

/// One payment by card or slip; a few pay with vouchers first.
fn payments(due: i64, stream: &mut Stream) -> Vec<Payment> {
    let mut payments = Vec::with_capacity(1);
    let mut left = due;
    if stream.chance(0.025) {
        for _ in 0..=stream.geometric(0.6) {
            let cents = (left as f64 * (0.1 + 0.5 * stream.unit())) as i64;
            left -= cents;
            payments.push(Payment { kind: "voucher", installments: 1, cents });
        }
    }
    let kind = match stream.unit() {
        u if u < 0.76 => "credit_card",
        u if u < 0.96 => "boleto",
        u if u < 0.985 => "voucher",
        _ => "debit_card",
    };
    let most = if kind == "credit_card" { 1 + due / 5_000 } else { 1 };
    let installments = (1 + stream.geometric(0.32) as i64).min(most).min(24);
    payments.push(Payment { kind, installments, cents: left });
    payments
}

/// Titles and texts of four and five stars.
const PRAISE: [(&str, &str); 8] = [
    ("Recomendo", "Chegou antes do prazo, muito bem embalado."),
    ("Muito bom", "Produto de ótima qualidade, igual ao da foto."),
    ("Super recomendo", "Entrega rápida, recomendo a loja"),
    ("Excelente", "Adorei!"),
    ("Perfeito", "Tudo certo, \"nota dez\" para o vendedor."),
    ("10", "Bom produto"),
    ("Ótimo", "Já é a segunda vez que compro aqui e gostei muito, parabéns"),
    ("Gostei", "Atendeu às expectativas, obrigado."),
];

/// Titles and texts of one to three stars.
const COMPLAINT: [(&str, &str); 7] = [
    ("Não recebi", "Até agora não recebi o produto, e ninguém responde."),
    ("Péssimo", "Veio com defeito, quero meu dinheiro de volta"),
    ("Produto errado", "Recebi outro modelo, diferente do que comprei."),
    ("Atraso", "A entrega atrasou muito."),
    ("Incompleto", "Comprei dois, só veio um"),
    ("Regular", "Qualidade abaixo do esperado,\nmas a entrega foi no prazo"),
    ("Decepcionada", "Não gostei do material."),
];
