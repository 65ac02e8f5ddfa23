//! `tidemill init`: writes a project; never over anything that is there.

use std::fs;
use std::path::{Path, PathBuf};

use super::Exit;
use super::args::InitArgs;
use crate::connect::files::infer;
use crate::error::{Error, Result, ResultExt};

/// The project that works at once: path and text; `{{name}}` stands for the project's name.
const STARTER: [(&str, &str); 5] = [
    ("tidemill.yaml", include_str!("starter/tidemill.yaml")),
    ("pipelines/sales.yaml", include_str!("starter/pipelines/sales.yaml")),
    ("sql/daily_sales.sql", include_str!("starter/sql/daily_sales.sql")),
    ("tests/daily_sales.yaml", include_str!("starter/tests/daily_sales.yaml")),
    ("data/orders/2024-05.csv", include_str!("starter/data/orders/2024-05.csv")),
];

pub(super) fn execute(args: &InitArgs) -> Result<Exit> {
    let name = project_name(&args.dir);
    let files: Vec<(PathBuf, String)> = if args.from.is_empty() {
        STARTER.iter().map(|(path, text)| (args.dir.join(path), text.replace("{{name}}", &name))).collect()
    } else {
        from_files(args, &name)?
    };
    if let Some((taken, _)) = files.iter().find(|(path, _)| path.exists()) {
        return Err(Error::usage(format!("{} is there already; nothing was written", taken.display())));
    }
    for (path, text) in &files {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).external(format!("can't make {}", parent.display()))?;
        }
        fs::write(path, text).external(format!("can't write {}", path.display()))?;
        println!("wrote {}", path.display());
    }
    let enter = if args.dir == Path::new(".") { String::new() } else { format!("cd {} && ", args.dir.display()) };
    println!("\nNext: {enter}tidemill run");
    Ok(0)
}

fn from_files(args: &InitArgs, name: &str) -> Result<Vec<(PathBuf, String)>> {
    let root = std::path::absolute(&args.dir).external("can't read the current folder")?;
    let sources = infer::infer(&args.from)?;
    let mut yaml = format!("pipeline: {name}\nsources:\n");
    for source in &sources {
        yaml.push_str(&source.to_yaml(&root));
    }
    yaml.push_str("models:\n");
    for source in &sources {
        let source = &source.name;
        yaml.push_str(&format!(
            "  {source}_count:\n    description: How many rows {source} has\n    sql: select count(*) as row_count from {source}\n"
        ));
    }
    Ok(vec![
        (args.dir.join("tidemill.yaml"), STARTER[0].1.replace("{{name}}", name)),
        (args.dir.join(format!("pipelines/{name}.yaml")), yaml),
    ])
}

/// The folder's name as an identifier; `project` where nothing of it can stand.
fn project_name(dir: &Path) -> String {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_path_buf());
    let stem = absolute.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_lowercase();
    let name: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let name = name.trim_matches('_');
    match name.chars().next() {
        Some(first) if first.is_ascii_alphabetic() => name.to_string(),
        Some(_) => format!("p_{name}"),
        None => "project".to_string(),
    }
}
