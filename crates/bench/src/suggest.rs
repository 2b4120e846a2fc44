//! What somebody may have meant who wrote a name that does not exist.

/// Names further away than this many changes of a letter are not what was meant.
const MAX_DISTANCE: usize = 3;

/// The known name that is nearest to `word`, if one is near.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let by_distance = known.into_iter().map(|name| (strsim::osa_distance(word, name), name));
    let (distance, name) = by_distance.min()?;
    (distance <= MAX_DISTANCE.min(name.len() / 2)).then_some(name)
}

/// "no such WHAT: WORD", with the nearest of those that there are, or all of them.
pub(crate) fn no_such<'a>(
    what: &str,
    word: &str,
    known: impl IntoIterator<Item = &'a str> + Clone,
) -> String {
    match nearest(word, known.clone()) {
        Some(name) => format!("no such {what}: {word}; did you mean {name}?"),
        None => {
            let known: Vec<&str> = known.into_iter().collect();
            format!("no such {what}: {word}; there are {}", known.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested_and_a_far_one_is_not() {
        let known = ["interpreter", "shell", "think"];
        assert_eq!(no_such("scenario", "shel", known), "no such scenario: shel; did you mean shell?");
        assert_eq!(nearest("inter", known), None);
        assert!(no_such("scenario", "gpu", known).ends_with("there are interpreter, shell, think"));
    }
}
