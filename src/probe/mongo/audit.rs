//! Whether the deployment's queries have the indexes that they need: asked of the planner, nothing is read.

use mongodb::bson::{Bson, Document, doc};
use mongodb::{Client, Database};

use super::{DATABASE, let_go, options};
use crate::probe::ProbeError;
use crate::record::{IndexAudit, IndexFinding, IndexProblem};
use crate::scenario::file::QuerySection;
use crate::secret::Secret;

/// Explains each query with `queryPlanner`. A failure is part of what is told.
pub async fn audit(uri: &Secret, database: Option<&str>, queries: &[QuerySection]) -> IndexAudit {
    let mut told = IndexAudit {
        database: database.unwrap_or(DATABASE).to_owned(),
        checked: 0,
        empty: Vec::new(),
        findings: Vec::new(),
        failed: None,
    };
    if let Err(error) = explain_all(uri, database, queries, &mut told).await {
        told.failed = Some(error.to_string());
    }
    told
}

async fn explain_all(
    uri: &Secret,
    database: Option<&str>,
    queries: &[QuerySection],
    told: &mut IndexAudit,
) -> Result<(), ProbeError> {
    let client = Client::with_options(options(uri).await?).map_err(|error| ProbeError::mongo(&error, uri))?;
    let named = client.default_database().map(|database| database.name().to_owned());
    let name = database.map(str::to_owned).or(named).unwrap_or_else(|| DATABASE.to_owned());
    let database = client.database(&name);
    told.database = name;
    for query in queries {
        match explain(&database, query).await {
            Ok(Some(problems)) => {
                told.checked += 1;
                if problems.is_empty() {
                    continue;
                }
                let documents = documents(&database, &query.collection).await;
                told.findings.extend(problems.into_iter().map(|problem| finding(query, problem, documents)));
            }
            Ok(None) => told.empty.push(query.collection.clone()),
            Err(error) => return Err(ProbeError::mongo(&error, uri)),
        }
    }
    told.empty.sort();
    told.empty.dedup();
    let_go(client).await;
    Ok(())
}

/// What the winning plan of a query does; `None`: there is no such collection, or nothing in it.
async fn explain(
    database: &Database,
    query: &QuerySection,
) -> Result<Option<Vec<IndexProblem>>, mongodb::error::Error> {
    // The values do not matter for the plan of an equality, but whether there is an index.
    let filter: Document = query.filter.iter().map(|field| (field.clone(), Bson::from("capacity-check"))).collect();
    let mut find = doc! { "find": &query.collection, "filter": filter };
    if !query.sort.is_empty() {
        find.insert("sort", keys(&query.sort));
    }
    let answer = database.run_command(doc! { "explain": find, "verbosity": "queryPlanner" }).await?;
    let mut stages = Vec::new();
    collect(answer.get("queryPlanner").and_then(|planner| planner.as_document()?.get("winningPlan")), &mut stages);
    if stages.iter().any(|stage| stage == "EOF") {
        return Ok(None);
    }
    let problem = |stage: &str, problem| stages.iter().any(|found| found == stage).then_some(problem);
    let found = [problem("COLLSCAN", IndexProblem::CollectionScan), problem("SORT", IndexProblem::MemorySort)];
    // Who reads everything has worse to do than to sort it.
    Ok(Some(found.into_iter().flatten().take(1).collect()))
}

/// All stages of a plan, in whatever form the version tells it.
fn collect(plan: Option<&Bson>, stages: &mut Vec<String>) {
    match plan {
        Some(Bson::Document(document)) => {
            for (key, value) in document {
                match value {
                    Bson::String(stage) if key == "stage" => stages.push(stage.clone()),
                    value => collect(Some(value), stages),
                }
            }
        }
        Some(Bson::Array(values)) => values.iter().for_each(|value| collect(Some(value), stages)),
        _ => {}
    }
}

async fn documents(database: &Database, collection: &str) -> u64 {
    // How many there are is an aside: where it may not be asked, it is not told.
    database.collection::<Document>(collection).estimated_document_count().await.unwrap_or(0)
}

/// Fields with their order, as an index and a sort write them.
fn keys(fields: &[String]) -> Document {
    let one = |field: &String| match field.strip_prefix('-') {
        Some(field) => (field.to_owned(), Bson::Int32(-1)),
        None => (field.clone(), Bson::Int32(1)),
    };
    fields.iter().map(one).collect()
}

fn finding(query: &QuerySection, problem: IndexProblem, documents: u64) -> IndexFinding {
    let braces = |fields: &[String]| {
        let fields: Vec<String> =
            keys(fields).into_iter().map(|(field, order)| format!("{}: {order}", quoted(&field))).collect();
        fields.join(", ")
    };
    let filter: Vec<String> = query.filter.iter().map(|field| quoted(field)).collect();
    let sort = if query.sort.is_empty() { String::new() } else { format!(".sort({{ {} }})", braces(&query.sort)) };
    // Equality first, then the sort: so one index serves both.
    let all: Vec<String> = query.filter.iter().chain(&query.sort).cloned().collect();
    IndexFinding {
        query: format!("{}.find({{ {} }}){sort}", query.collection, filter.join(", ")),
        problem,
        documents,
        create_index: format!("db.{}.createIndex({{ {} }})", query.collection, braces(&all)),
    }
}

/// A field's name as mongosh reads it.
fn quoted(field: &str) -> String {
    if field.contains('.') { format!("\"{field}\"") } else { field.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_names_the_query_and_the_index() {
        let query = QuerySection {
            collection: "conversations".to_owned(),
            filter: vec!["user".to_owned()],
            sort: vec!["-updatedAt".to_owned()],
        };
        let found = finding(&query, IndexProblem::MemorySort, 7);
        assert_eq!(found.query, "conversations.find({ user }).sort({ updatedAt: -1 })");
        assert_eq!(found.create_index, "db.conversations.createIndex({ user: 1, updatedAt: -1 })");
    }

    #[test]
    fn stages_are_found_wherever_they_stand() {
        let plan = doc! { "queryPlan": { "stage": "SORT", "inputStages": [{ "stage": "COLLSCAN" }] }, "slots": "x" };
        let mut stages = Vec::new();
        collect(Some(&Bson::Document(plan)), &mut stages);
        assert_eq!(stages, ["SORT", "COLLSCAN"]);
    }
}
