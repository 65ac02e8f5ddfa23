//! What the shop sells and who sells it: products, categories, sellers. Knows no order and no event.

mod categories;

use crate::error::Result;
use crate::limits::GENERATED_PRODUCTS_MAX;

use super::draw::{Hits, Stream, Weighted, bits_of, id_of};
#[cfg(feature = "kafka")]
use super::encode::JsonMessages;
use super::encode::{Fields, Row};
use super::files::Output;
use super::parallel::Crew;
use super::places::Places;
use super::tables::{PRODUCT_CATEGORIES, PRODUCTS, SELLERS};

use categories::CATEGORIES;

/// Names of the streams of identifiers.
const PRODUCT_IDS: u64 = 1;
const SELLER_IDS: u64 = 2;
const SELLER_PLACES: u64 = 3;
const COMPANIONS: u64 = 4;

/// Share of products that are sold but stand in no file of `products`.
const UNLISTED: f64 = 0.004;
/// Share of products without category, as in the published data.
const UNCATEGORIZED: f64 = 0.018;
/// Products of a piece of the file.
const PRODUCTS_PER_CHUNK: usize = 16_384;
/// Products that one product is often bought with.
const COMPANIONS_PER_PRODUCT: u64 = 3;
/// Bands of price, a tenth apart: from 3.00 to above 5,000.00.
const BANDS: usize = 80;

/// One product.
pub(super) struct Product {
    /// Cents.
    pub(super) price: i64,
    /// Index of its category; none for a few.
    category: Option<u8>,
    /// Index of its seller.
    seller: u32,
    /// Whether it stands in `products`.
    listed: bool,
}

/// Products that go together, and their popularity among themselves.
struct Shelf {
    products: Vec<u32>,
    choice: Weighted,
}

/// All that is sold.
pub(super) struct Catalog {
    seed: u64,
    products: Vec<Product>,
    sellers: u32,
    popularity: Weighted,
    /// By category, the last one for those without.
    shelves: Vec<Shelf>,
    /// By price; empty bands hold the next cheaper one's products.
    bands: Vec<Shelf>,
}

impl Catalog {
    /// The catalog of a shop of so many orders and events: about a thousand products, more in a larger shop.
    pub(super) fn new(seed: u64, orders: u64, events: u64) -> Self {
        let count = (1_000 + orders / 25 + events / 1_000).min(GENERATED_PRODUCTS_MAX);
        let sellers = (count / 10) as u32;
        let mut stream = Stream::new(seed, "products", 0);
        let of_category = Weighted::new(&CATEGORIES.map(|c| c.weight));
        let products: Vec<Product> = (0..count)
            .map(|_| {
                let kind = of_category.draw(&mut stream);
                Product {
                    price: price(CATEGORIES[kind].price, &mut stream),
                    category: (!stream.chance(UNCATEGORIZED)).then_some(kind as u8),
                    seller: (f64::from(sellers) * stream.unit().powi(2)) as u32,
                    listed: !stream.chance(UNLISTED),
                }
            })
            .collect();
        // Products are drawn independently, so that their place is as good as a random rank: Zipf's law, flattened at the top.
        let weights: Vec<f64> = (0..count).map(|rank| (rank as f64 + 3.0).powf(-0.95)).collect();
        let shelve = |groups: Vec<Vec<u32>>| groups.into_iter().map(|g| Shelf::new(g, &weights)).collect::<Vec<_>>();
        let mut by_category = vec![Vec::new(); CATEGORIES.len() + 1];
        let mut by_band = vec![Vec::new(); BANDS];
        for (index, product) in products.iter().enumerate() {
            by_category[product.category.map_or(CATEGORIES.len(), usize::from)].push(index as u32);
            by_band[band(product.price as f64)].push(index as u32);
        }
        fill_gaps(&mut by_band);
        let (shelves, bands) = (shelve(by_category), shelve(by_band));
        Self { seed, popularity: Weighted::new(&weights), products, sellers, shelves, bands }
    }

    /// A product by popularity.
    pub(super) fn popular(&self, stream: &mut Stream) -> u32 {
        self.popularity.draw(stream) as u32
    }

    /// A product of the same category, by popularity.
    pub(super) fn similar(&self, product: u32, stream: &mut Stream) -> u32 {
        let shelf = self.products.get(product as usize).and_then(|p| p.category).map_or(CATEGORIES.len(), usize::from);
        self.shelves.get(shelf).map_or(product, |s| s.draw(stream))
    }

    /// A product of about that price in cents, by popularity.
    pub(super) fn of_price(&self, cents: f64, stream: &mut Stream) -> u32 {
        self.bands[band(cents)].draw(stream)
    }

    /// One of the few products of about the same price that go with it, the same few all the time.
    pub(super) fn companion(&self, product: u32, stream: &mut Stream) -> u32 {
        let place = u64::from(product) * COMPANIONS_PER_PRODUCT + stream.below(COMPANIONS_PER_PRODUCT);
        self.bands[band(self.product(product).price as f64)].at(bits_of(self.seed, COMPANIONS, place))
    }

    /// A product.
    pub(super) fn product(&self, index: u32) -> &Product {
        &self.products[index as usize]
    }

    /// Its identifier among orders.
    pub(super) fn product_id(&self, index: u32) -> u128 {
        id_of(self.seed, PRODUCT_IDS, u64::from(index))
    }

    /// Identifier of its seller; one sale in fifty is another's.
    pub(super) fn seller_id(&self, index: u32, stream: &mut Stream) -> u128 {
        let usual = self.product(index).seller;
        let seller = if stream.chance(0.02) { stream.below(u64::from(self.sellers)) } else { u64::from(usual) };
        id_of(self.seed, SELLER_IDS, seller)
    }

    /// Number, category's number and path, and brand, as the web shop has them.
    pub(super) fn web(&self, index: u32) -> (i64, i64, Option<&'static str>, Option<&'static str>) {
        let category = self.product(index).category;
        let number = 1_000_000 + i64::from(index) * 17;
        let category_number = 2_053_013_552_000_000_000 + category.map_or(0, |c| 1 + i64::from(c)) * 7_640_393;
        let code = category.and_then(|c| CATEGORIES[usize::from(c)].code);
        let brand = bits_of(self.seed, PRODUCT_IDS, u64::from(index)) as usize % (BRANDS.len() * 7 / 6);
        (number, category_number, code, BRANDS.get(brand).copied())
    }

    /// Writes `products`, `product_categories` and `sellers`.
    pub(super) fn write(&self, crew: Crew, output: &mut Output) -> Result<()> {
        let encoding = output.encoding(&PRODUCTS)?;
        for piece in crew.map(self.pieces(), |n| encoding.encode(self.product_rows(n), whole()))? {
            output.append(&PRODUCTS, "products", piece)?;
        }
        let rows = output.encoding(&PRODUCT_CATEGORIES)?.encode(category_rows(), whole())?;
        output.append(&PRODUCT_CATEGORIES, "product_categories", rows)?;
        let places = Places::new();
        let rows = output.encoding(&SELLERS)?.encode(self.seller_rows(&places), whole())?;
        output.append(&SELLERS, "sellers", rows)
    }

    /// Hands on the rows of the files, as JSON, each with its table's name and its key.
    #[cfg(feature = "kafka")]
    pub(super) fn each(&self, mut take: impl FnMut(&'static str, &str, &[u8]) -> Result<()>) -> Result<()> {
        let (places, mut whole) = (Places::new(), whole());
        let mut json = JsonMessages::new(&PRODUCTS);
        for row in (0..self.pieces()).flat_map(|piece| self.product_rows(piece)) {
            take(PRODUCTS.name, &format!("{:032x}", row.id), json.of(&row, &mut whole).0)?;
        }
        let mut json = JsonMessages::new(&PRODUCT_CATEGORIES);
        for row in category_rows() {
            take(PRODUCT_CATEGORIES.name, row.0, json.of(&row, &mut whole).0)?;
        }
        let mut json = JsonMessages::new(&SELLERS);
        for row in self.seller_rows(&places) {
            take(SELLERS.name, &format!("{:032x}", row.id()), json.of(&row, &mut whole).0)?;
        }
        Ok(())
    }

    /// Pieces in which products are made.
    fn pieces(&self) -> usize {
        self.products.len().div_ceil(PRODUCTS_PER_CHUNK)
    }

    fn product_rows(&self, piece: usize) -> impl Iterator<Item = ProductRow> {
        let from = piece * PRODUCTS_PER_CHUNK;
        let mut stream = Stream::new(self.seed, "product rows", piece as u64);
        let range = from..(from + PRODUCTS_PER_CHUNK).min(self.products.len());
        range
            .filter(|&n| self.products[n].listed)
            .map(move |n| ProductRow::new(self.product_id(n as u32), self.products[n].category, &mut stream))
    }

    fn seller_rows<'r>(&self, places: &'r Places) -> impl Iterator<Item = SellerRow<'r>> + use<'r> {
        let seed = self.seed;
        (0..u64::from(self.sellers)).map(move |n| SellerRow { seed, places, n })
    }
}

fn category_rows() -> impl Iterator<Item = CategoryRow> {
    CATEGORIES.iter().filter_map(|c| Some(CategoryRow(c.name, c.english?)))
}

/// No malformed lines: tables that describe things have none.
fn whole() -> Hits {
    Hits::new(Stream::new(0, "", 0), 0.0)
}

impl Shelf {
    fn new(products: Vec<u32>, weights: &[f64]) -> Self {
        let own: Vec<f64> = products.iter().map(|&p| weights[p as usize]).collect();
        Self { choice: Weighted::new(&own), products }
    }

    fn draw(&self, stream: &mut Stream) -> u32 {
        self.at(stream.bits())
    }

    /// The product that random bits choose.
    fn at(&self, bits: u64) -> u32 {
        self.products.get(self.choice.at(bits)).copied().unwrap_or(0)
    }
}

/// Lognormal around the category's, ending as prices end.
fn price(typical: f64, stream: &mut Stream) -> i64 {
    let plain = (typical * (0.75 * stream.normal() - 0.28).exp()).clamp(3.0, 5_000.0) as i64;
    plain * 100 + stream.one_of(&[90_i64, 99, 0, 50, 90, 99])
}

fn band(cents: f64) -> usize {
    (((cents / 300.0).max(1.0).ln() / 1.1_f64.ln()) as usize).min(BANDS - 1)
}

/// An empty band takes the next cheaper one's products, or the next dearer one's at the lower end.
fn fill_gaps(bands: &mut [Vec<u32>]) {
    for i in 1..bands.len() {
        if bands[i].is_empty() {
            bands[i] = bands[i - 1].clone();
        }
    }
    for i in (1..bands.len()).rev() {
        if bands[i - 1].is_empty() {
            bands[i - 1] = bands[i].clone();
        }
    }
}

/// Some products have no brand.
const BRANDS: [&str; 36] = [
    "aguamar",
    "alvorada",
    "araucaria",
    "atlantica",
    "bemtevi",
    "brisa",
    "cactus",
    "caravela",
    "cerrado",
    "colibri",
    "copaiba",
    "coral",
    "estrela",
    "farol",
    "flora",
    "girassol",
    "guarana",
    "horizonte",
    "ipe",
    "jangada",
    "lagoa",
    "lua nova",
    "mandacaru",
    "mare",
    "mirante",
    "nativa",
    "onda",
    "orvalho",
    "pitanga",
    "quilha",
    "rede",
    "sabia",
    "serra",
    "tamoio",
    "varanda",
    "vento",
];

struct ProductRow {
    id: u128,
    category: Option<&'static str>,
    described: [Option<i64>; 3],
    measures: [Option<i64>; 4],
}

impl ProductRow {
    fn new(id: u128, category: Option<u8>, stream: &mut Stream) -> Self {
        let described =
            [stream.between(15, 63), (stream.gamma(1.8, 430.0) as i64).max(20), 1 + stream.geometric(0.42) as i64];
        let box_side = stream.gamma(3.0, 8.0);
        let mut side = |least: i64| (least + (box_side * (0.5 + stream.unit())) as i64).min(105);
        let (length, height, width) = (side(16), side(2), side(11));
        let weight = ((length * height * width) as f64 * (0.05 + 0.4 * stream.unit())) as i64;
        let measured = !stream.chance(0.001);
        // Who names no category describes nothing either.
        let described = described.map(|value| category.is_some().then_some(value));
        let measures = [weight.clamp(50, 40_000), length, height, width].map(|value| measured.then_some(value));
        Self { id, category: category.map(|c| CATEGORIES[usize::from(c)].name), described, measures }
    }
}

impl Row for ProductRow {
    fn fields(&self, to: &mut impl Fields) {
        to.hex(self.id);
        to.text(self.category);
        for value in self.described.iter().chain(&self.measures) {
            to.int(*value);
        }
    }
}

struct CategoryRow(&'static str, &'static str);

impl Row for CategoryRow {
    fn fields(&self, to: &mut impl Fields) {
        to.text(Some(self.0));
        to.text(Some(self.1));
    }
}

struct SellerRow<'a> {
    seed: u64,
    places: &'a Places,
    n: u64,
}

impl SellerRow<'_> {
    fn id(&self) -> u128 {
        id_of(self.seed, SELLER_IDS, self.n)
    }
}

impl Row for SellerRow<'_> {
    fn fields(&self, to: &mut impl Fields) {
        let (city, zip) = self.places.at(bits_of(self.seed, SELLER_PLACES, self.n));
        to.hex(self.id());
        to.text(Some(&zip));
        to.text(Some(city.name));
        to.text(Some(city.state));
    }
}
