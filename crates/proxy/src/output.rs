//! Which columns an answer has. Pure.
//!
//! 1. `*` is every field and every dynamic key. On a dynamic collection a name that is no field is a dynamic key; on
//!    another it is an error.
//! 2. Dynamic keys travel in one column, `$meta`; the names asked for go back beside it, and the client picks.
use rpc::schema::{CollectionSchema, FieldData, FieldSchema};

use crate::columns::{self, META};
use crate::error::{Error, Result};
use crate::schema;

/// What was asked for, resolved.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Output {
    /// The columns to fetch, in the order they are answered.
    pub(crate) fields: Vec<FieldSchema>,
    /// The names that go back to the client.
    pub(crate) names: Vec<String>,
}

impl Output {
    /// The columns' names, as the data-nodes know them.
    pub(crate) fn columns(&self) -> Vec<String> {
        self.fields.iter().map(|field| field.name.clone()).collect()
    }

    /// Every column, without rows.
    pub(crate) fn empty(&self) -> Vec<FieldData> {
        self.fields.iter().map(columns::empty).collect()
    }

    fn add(&mut self, field: FieldSchema) {
        if self.fields.iter().all(|known| known.name != field.name) {
            self.fields.push(field);
        }
    }

    fn name(&mut self, name: &str) {
        if self.names.iter().all(|known| known != name) {
            self.names.push(name.to_owned());
        }
    }
}

/// What a search answers: the columns asked for, none when nothing was.
pub(crate) fn of_search(schema: &CollectionSchema, asked: &[String]) -> Result<Output> {
    let mut output = Output { fields: Vec::new(), names: Vec::new() };
    for name in asked {
        resolve(schema, name.trim(), &mut output)?;
    }
    Ok(output)
}

/// What a query answers: the same, and always the key.
pub(crate) fn of_query(schema: &CollectionSchema, asked: &[String]) -> Result<Output> {
    let mut output = of_search(schema, asked)?;
    let primary = schema::primary(schema)?;
    output.add(primary.clone());
    output.name(&primary.name);
    Ok(output)
}

fn resolve(schema: &CollectionSchema, name: &str, output: &mut Output) -> Result<()> {
    if name == "*" {
        all(schema, output);
    } else if let Some(field) = schema::field(schema, name) {
        output.add(field.clone());
        output.name(name);
    } else if schema.enable_dynamic_field && !name.contains(['[', '(']) {
        output.add(columns::meta_field());
        output.name(name);
    } else if schema.enable_dynamic_field {
        return Err(Error::unbuilt(format_args!("output field `{name}`, a path or an expression,")));
    } else {
        return Err(Error::invalid(format!("field {name} not exist")));
    }
    Ok(())
}

fn all(schema: &CollectionSchema, output: &mut Output) {
    for field in &schema.fields {
        output.add(field.clone());
        output.name(&field.name);
    }
    if schema.enable_dynamic_field {
        output.add(columns::meta_field());
        output.name(META);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::tests::simple;
    use rpc::schema::DataType;

    fn names(asked: &[&str]) -> (Vec<String>, Vec<String>) {
        let asked: Vec<String> = asked.iter().map(|name| (*name).to_owned()).collect();
        let output = of_query(&simple(DataType::Int64), &asked).unwrap();
        (output.columns(), output.names)
    }

    #[test]
    fn star_is_everything() {
        let all = ["id", "vector", META].map(str::to_owned).to_vec();
        assert_eq!(names(&["*"]), (all.clone(), all));
    }

    #[test]
    fn queries_always_answer_the_key() {
        assert_eq!(names(&["vector"]).0, ["vector", "id"]);
        assert_eq!(names(&["id", "id"]).0, ["id"]);
    }

    #[test]
    fn dynamic_keys_share_one_column() {
        let (columns, names) = names(&["color", "size"]);
        assert_eq!(
            (columns, names),
            (vec![META.into(), "id".into()], ["color", "size", "id"].map(str::to_owned).to_vec())
        );
    }

    #[test]
    fn unknown_names_are_errors_without_dynamic_fields() {
        let schema = CollectionSchema { enable_dynamic_field: false, ..simple(DataType::Int64) };
        assert!(matches!(of_search(&schema, &["color".to_owned()]), Err(Error::Refused(_))));
        assert!(of_search(&simple(DataType::Int64), &["$meta[\"a\"]".to_owned()]).is_err());
    }

    #[test]
    fn searches_answer_nothing_unasked() {
        assert_eq!(of_search(&simple(DataType::Int64), &[]).unwrap().columns(), Vec::<String>::new());
    }
}
