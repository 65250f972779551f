//! Names of people in stored events, whose text (JSON) has the identity of the track.

use serde_json::Value;

use crate::store::database::Database;
use crate::store::error::StoreError;

/// The name of the person in an event, if it has one.
pub(super) fn name_in(json: &str) -> Option<String> {
    let event: Value = serde_json::from_str(json).ok()?;
    Some(event["identity"]["name"].as_str()?.to_string())
}

/// The event with the name `new` instead of `old`, or without an identity if `new` is None. None if
/// the event does not have the name `old`.
pub(super) fn with_name(json: &str, old: &str, new: Option<&str>) -> Option<String> {
    let mut event: Value = serde_json::from_str(json).ok()?;
    if event["identity"]["name"].as_str() != Some(old) {
        return None;
    }
    match new {
        Some(new) => event["identity"]["name"] = new.into(),
        None => drop(event.as_object_mut()?.remove("identity")),
    }
    Some(event.to_string())
}

/// Changes the name in all stored events, or removes the identity from them if `new` is None. To be
/// called within a transaction. Reads all events, because they have no index of names.
///
/// # Errors
/// When the database fails.
pub(super) fn change(
    db: &mut dyn Database,
    old: &str,
    new: Option<&str>,
) -> Result<(), StoreError> {
    // The name as it stands in the text; `!` escapes the wildcards of LIKE.
    let text = Value::from(old).to_string();
    let text = text
        .replace('!', "!!")
        .replace('%', "!%")
        .replace('_', "!_");
    let pattern = format!("%\"name\":{text}%");
    let rows = db.query(
        "SELECT id, json FROM events WHERE json LIKE ? ESCAPE '!'",
        &[pattern.as_str().into()],
    )?;
    for row in &rows {
        if let Some(json) = with_name(&row.text(1)?, old, new) {
            let values = [json.as_str().into(), row.int(0)?.into()];
            db.execute("UPDATE events SET json = ? WHERE id = ?", &values)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_of_the_identity_is_changed() {
        let event = r#"{"identity":{"name":"a \"b\"","similarity":0.9},"track":1,"zone":"a"}"#;
        assert_eq!(name_in(event).as_deref(), Some("a \"b\""));
        let renamed = with_name(event, "a \"b\"", Some("c")).expect("its name");
        assert_eq!(name_in(&renamed).as_deref(), Some("c"));
        let without = with_name(event, "a \"b\"", None).expect("its name");
        assert_eq!(without, r#"{"track":1,"zone":"a"}"#);
        let zone = r#"{"track":1,"zone":{"name":"a"}}"#;
        assert!(with_name(event, "a", None).is_none() && with_name(zone, "a", None).is_none());
    }
}
