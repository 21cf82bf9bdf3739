//! When two XML documents are the same: same elements, attributes and text, whatever the white space, the order
//! of attributes and the quotes.

use std::collections::BTreeMap;

#[derive(Debug, PartialEq, Eq)]
struct Element {
    name: String,
    attributes: BTreeMap<String, String>,
    text: String,
    children: Vec<Element>,
}

/// Compares two documents; an error when one cannot be parsed.
pub fn same(a: &str, b: &str) -> Result<bool, String> {
    Ok(tree(a)? == tree(b)?)
}

fn tree(text: &str) -> Result<Element, String> {
    let document = roxmltree::Document::parse(text).map_err(|e| e.to_string())?;
    Ok(element(document.root_element()))
}

fn element(node: roxmltree::Node<'_, '_>) -> Element {
    let text: Vec<_> = node
        .children()
        .filter(roxmltree::Node::is_text)
        .filter_map(|c| c.text())
        .map(str::trim)
        .collect();
    Element {
        name: node.tag_name().name().to_owned(),
        attributes: node.attributes().map(|a| (a.name().into(), a.value().into())).collect(),
        text: text.concat(),
        children: node.children().filter(roxmltree::Node::is_element).map(element).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::same;

    #[test]
    fn white_space_and_quotes_do_not_matter_but_order_of_elements_does() {
        assert!(
            same("<a x='1' y='2'><b>t</b>\n</a>", "<a y=\"2\" x=\"1\"><b> t </b></a>").unwrap()
        );
        assert!(!same("<a><b/><c/></a>", "<a><c/><b/></a>").unwrap());
        assert!(!same("<a x='1'/>", "<a x='2'/>").unwrap());
        assert!(same("<a>", "<a/>").is_err());
    }
}
