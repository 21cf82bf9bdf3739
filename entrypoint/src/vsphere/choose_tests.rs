use super::*;
use proptest::prelude::*;

const A: &str = "42000000-1111-2222-3333-444455556666";
const B: &str = "42000000-1111-2222-3333-444455556667";

fn vm(uuid: &str, name: &str) -> Listed {
    Listed { uuid: uuid.to_owned(), name: name.to_owned() }
}

fn named(name: &str) -> Wanted<'_> {
    Wanted { name, uuid: None, moref: None }
}

fn has(uuid: &str, moref: &str) -> Described {
    Described {
        uuid: uuid.to_owned(),
        name: "web".to_owned(),
        moref: Some(moref.to_owned()),
        active: false,
        disks: 1,
    }
}

#[test]
fn the_list_is_read_with_libvirts_warnings_in_it() {
    let text = format!(
        "2026-12-01 02:00:00.000+0000: 7: warning : esxVI_UserSession_Deserialize:7089 : Unexpected\n{} web server é \n{B}  two\n\n",
        A.to_uppercase()
    );
    assert_eq!(listed(&text), [vm(A, "web server é"), vm(B, " two")]);
    assert_eq!(listed(&format!("{A}\n{}", &A[1..])), []);
}

#[test]
fn the_description_says_what_matters() {
    let xml = format!(
        "warning\n<domain type='vmware' id='7' xmlns:vmware='http://libvirt.org/schemas/domain/vmware/1.0'>
  <name>web</name><uuid>{A}</uuid><vmware:moref>vm-21</vmware:moref>
  <devices><disk type='file' device='disk'><source file='[ds] web/web.vmdk'/></disk>
  <disk type='file' device='cdrom'/><disk type='file'/></devices></domain>\n\n"
    );
    let found = described(&xml).unwrap();
    assert_eq!(found, Described { active: true, disks: 2, ..has(A, "vm-21") });
    assert!(!described(&xml.replace(" id='7'", "")).unwrap().active);
    assert_eq!(described("<domain"), None);
}

#[test]
fn one_of_a_name_is_taken_and_none_names_what_there_is() {
    let list = [vm(A, "web"), vm(B, "db")];
    assert_eq!(candidates(&list, &named("web")).unwrap(), [&list[0]]);
    assert_eq!(candidates(&list, &named(B)).unwrap(), [&list[1]]);
    let upper = B.to_uppercase();
    let by_uuid = Wanted { uuid: Some(&upper), ..named("web") };
    assert_eq!(candidates(&list, &by_uuid).unwrap(), [&list[1]]);
    let none = |list: &[Listed], wanted: &Wanted<'_>| {
        assert_eq!(candidates(list, wanted).unwrap(), [] as [&Listed; 0]);
        missing(list, wanted)
    };
    let failure = none(&list, &named("Web"));
    assert_eq!(failure.class, Class::NotFound);
    assert!(failure.message.ends_with("there is \"web\""), "{failure}");
    let failure = none(&list, &named("mail"));
    assert!(failure.message.contains("there are \"db\", \"web\""), "{failure}");
    let many: Vec<Listed> = (0..20).map(|i| vm(A, &format!("vm{i:02}"))).collect();
    let failure = none(&many, &named("mail"));
    assert!(failure.message.contains("\"vm07\", 12 more"), "{failure}");
}

#[test]
fn copies_with_one_uuid_are_refused_whatever_their_names() {
    let list = [vm(A, "web"), vm(A, "copy of web"), vm(B, "db")];
    let failure = candidates(&list, &named("web")).unwrap_err();
    assert!(
        failure.message.contains(A) && failure.message.contains("\"copy of web\""),
        "{failure}"
    );
    assert!(candidates(&list, &named("db")).is_ok());
}

#[test]
fn another_host_may_have_a_vm_with_the_uuid() {
    assert!(check_name(&vm(A, "web"), &has(A, "vm-1"), &named("web")).is_ok());
    let referred = Wanted { moref: Some("vm-1"), ..named("db") };
    assert!(check_name(&vm(A, "db"), &has(A, "vm-1"), &referred).is_ok());
    let failure = check_name(&vm(A, "db"), &has(A, "vm-1"), &named("db")).unwrap_err();
    assert!(failure.message.contains("\"db\", \"web\""), "{failure}");
    let by_uuid = Wanted { uuid: Some(B), ..named("web") };
    assert_eq!(
        (uuid_of(&by_uuid), uuid_of(&named(A)), uuid_of(&named("web"))),
        (Some(B), Some(A), None)
    );
}

#[test]
fn blanks_at_the_end_of_a_name_count() {
    let list = [vm(A, "web"), vm(B, "web")];
    let found = [has(A, "vm-21"), Described { name: "web ".to_owned(), ..has(B, "vm-22") }];
    for (name, uuid) in [("web", A), ("web ", B)] {
        assert_eq!(candidates(&list, &named(name)).unwrap().len(), 2);
        assert_eq!(decide(&found, &named(name)).unwrap().uuid, uuid);
    }
}

#[test]
fn the_reference_decides_between_vms_of_one_name() {
    let found = [has(A, "vm-21"), has(B, "vm-22")];
    let failure = decide(&found, &named("web")).unwrap_err();
    assert!(failure.message.contains(&format!("vm-21 ({A}), vm-22 ({B})")), "{failure}");
    let second = Wanted { moref: Some("vm-22"), ..named("web") };
    assert_eq!(decide(&found, &second).unwrap().uuid, B);
    let failure = decide(&found, &Wanted { moref: Some("vm-2"), ..named("web") }).unwrap_err();
    assert_eq!(failure.class, Class::NotFound);
    assert!(failure.message.contains("not vm-2;"), "{failure}");
    // Without references there is nothing to compare.
    let plain = [Described { moref: None, ..has(A, "") }];
    assert!(decide(&plain, &second).is_ok());
}

proptest! {
    #[test]
    fn any_text_is_read_without_a_panic(text in "\\PC{0,200}|([0-9a-f-]{30,40} .{0,5}\n){0,4}") {
        let list = listed(&text);
        prop_assert!(list.iter().all(|vm| is_uuid(&vm.uuid)));
        let _ = described(&text);
        let _ = candidates(&list, &named("x"));
    }

    #[test]
    fn a_chosen_vm_is_one_of_those_asked_for(names in prop::collection::vec("[ab]", 1..6), name in "[ab]") {
        let list: Vec<Listed> =
            names.iter().enumerate().map(|(i, n)| vm(&format!("{i:08}{}", &A[8..]), n)).collect();
        match candidates(&list, &named(&name)) {
            Ok(found) => {
                prop_assert_eq!(found.is_empty(), !names.contains(&name));
                prop_assert!(found.iter().all(|vm| vm.name == name));
            }
            Err(failure) => prop_assert!(false, "{}", failure),
        }
    }
}
