//! Cities of the shop's customers and sellers. Knows no table.

use super::draw::{Weighted, unit};

/// A city, its state, the first three digits of its postal codes, and how many people buy from there, in thousands.
pub(super) struct City {
    /// Lower case, without accents.
    pub(super) name: &'static str,
    /// Two letters.
    pub(super) state: &'static str,
    zip: u32,
    weight: f64,
}

const fn city(name: &'static str, state: &'static str, zip: u32, weight: f64) -> City {
    City { name, state, zip, weight }
}

/// Some names stand in more than one state: bom jesus, santa luzia, cascavel, planalto, sao domingos, rio branco, general carneiro.
const CITIES: [City; 76] = [
    city("sao paulo", "SP", 10, 155.0),
    city("rio de janeiro", "RJ", 200, 69.0),
    city("belo horizonte", "MG", 301, 28.0),
    city("brasilia", "DF", 700, 21.0),
    city("curitiba", "PR", 800, 15.0),
    city("campinas", "SP", 130, 14.4),
    city("porto alegre", "RS", 900, 13.8),
    city("salvador", "BA", 400, 12.5),
    city("guarulhos", "SP", 70, 11.9),
    city("sao bernardo do campo", "SP", 96, 9.4),
    city("niteroi", "RJ", 240, 8.5),
    city("santo andre", "SP", 90, 8.0),
    city("osasco", "SP", 60, 7.5),
    city("santos", "SP", 110, 7.1),
    city("goiania", "GO", 740, 6.9),
    city("sao jose dos campos", "SP", 122, 6.9),
    city("fortaleza", "CE", 600, 6.5),
    city("sorocaba", "SP", 180, 6.3),
    city("recife", "PE", 500, 6.1),
    city("florianopolis", "SC", 880, 5.7),
    city("jundiai", "SP", 132, 5.6),
    city("ribeirao preto", "SP", 140, 5.1),
    city("nova iguacu", "RJ", 260, 4.4),
    city("barueri", "SP", 64, 4.3),
    city("belem", "PA", 660, 4.2),
    city("contagem", "MG", 320, 4.2),
    city("juiz de fora", "MG", 360, 4.2),
    city("mogi das cruzes", "SP", 87, 3.8),
    city("vitoria", "ES", 290, 3.8),
    city("uberlandia", "MG", 384, 3.8),
    city("vila velha", "ES", 291, 3.6),
    city("sao luis", "MA", 650, 3.5),
    city("maringa", "PR", 870, 3.4),
    city("joinville", "SC", 892, 3.2),
    city("londrina", "PR", 860, 3.1),
    city("cuiaba", "MT", 780, 3.1),
    city("manaus", "AM", 690, 2.5),
    city("natal", "RN", 590, 2.4),
    city("campo grande", "MS", 790, 2.3),
    city("teresina", "PI", 640, 2.2),
    city("maceio", "AL", 570, 2.1),
    city("joao pessoa", "PB", 580, 2.0),
    city("aracaju", "SE", 490, 1.8),
    city("blumenau", "SC", 890, 1.8),
    city("caxias do sul", "RS", 950, 1.7),
    city("pelotas", "RS", 960, 1.5),
    city("santa maria", "RS", 970, 1.3),
    city("palmas", "TO", 770, 1.0),
    city("porto velho", "RO", 768, 0.9),
    city("macapa", "AP", 689, 0.5),
    city("boa vista", "RR", 693, 0.4),
    city("rio branco", "AC", 699, 0.6),
    city("rio branco", "MT", 782, 0.1),
    city("cascavel", "PR", 858, 1.4),
    city("cascavel", "CE", 628, 0.2),
    city("santa luzia", "MG", 330, 0.9),
    city("santa luzia", "MA", 653, 0.2),
    city("santa luzia", "PB", 586, 0.1),
    city("bom jesus", "RS", 952, 0.2),
    city("bom jesus", "PI", 649, 0.2),
    city("bom jesus", "SC", 898, 0.1),
    city("planalto", "RS", 984, 0.15),
    city("planalto", "BA", 451, 0.1),
    city("planalto", "PR", 857, 0.1),
    city("sao domingos", "GO", 738, 0.1),
    city("sao domingos", "SC", 898, 0.15),
    city("sao domingos", "BA", 489, 0.1),
    city("general carneiro", "PR", 846, 0.1),
    city("general carneiro", "MT", 786, 0.1),
    city("embu-guacu", "SP", 69, 0.4),
    city("santa barbara d'oeste", "SP", 134, 0.8),
    city("franca", "SP", 144, 1.6),
    city("petropolis", "RJ", 256, 1.9),
    city("ouro preto", "MG", 354, 0.5),
    city("ilheus", "BA", 456, 0.7),
    city("parati", "RJ", 239, 0.3),
];

/// Where people live, by how many do.
pub(super) struct Places(Weighted);

impl Places {
    /// All cities.
    pub(super) fn new() -> Self {
        Self(Weighted::new(&CITIES.map(|c| c.weight)))
    }

    /// The city and the five-digit postal code that belong to random bits.
    pub(super) fn at(&self, bits: u64) -> (&'static City, String) {
        let city = &CITIES[self.0.at(bits)];
        let street = (unit(bits.rotate_left(32)) * 100.0) as u32;
        (city, format!("{:03}{street:02}", city.zip))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    #[test]
    fn names_repeat_over_states_only() {
        let mut states: HashMap<&str, HashSet<&str>> = HashMap::new();
        for city in &CITIES {
            assert!(states.entry(city.name).or_default().insert(city.state), "{} twice in {}", city.name, city.state);
            assert!(city.zip < 1000 && city.weight > 0.0);
        }
        assert!(states.values().filter(|s| s.len() > 1).count() >= 5);
    }
}
