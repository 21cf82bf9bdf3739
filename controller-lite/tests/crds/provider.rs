//! The rules of `Provider`.

use super::{api, judge, object};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

const SHA1: &str = "B0:1C:71:05:EF:47:AA:6A:CD:BD:C6:4F:3D:E1:B2:4D:E3:27:5B:0a";
const URL_HINT: &str =
    "url is https://HOST[:PORT][/sdk] of the vCenter or ESXi host, without a user";
const XEN_HINT: &str = "url is xen+ssh://[USER@]HOST[:PORT], without a password";
const HOST_HINT: &str = "the url of a host is esx://HOST[:PORT], without a user";
const PRINT_HINT: &str = "a thumbprint is 20 (SHA-1) or 32 (SHA-256) pairs of hexadecimal digits";

fn vsphere() -> Value {
    json!({
        "type": "vsphere", "url": "https://vc.example.com/sdk", "secretRef": {"name": "vc"},
        "trust": {}, "vddkImage": "registry.example.com/vddk:8",
        "hosts": [{"name": "esx1", "url": "esx://esx1.example.com", "secretRef": {"name": "esx1"}}],
    })
}

fn sha256() -> String {
    format!("{SHA1}:{}", &SHA1[..35])
}

#[tokio::test]
async fn vsphere_needs_an_address_and_a_secret() {
    judge(
        "Provider",
        &vsphere(),
        &[
            (&[], None),
            (&[("/url", json!("https://10.0.0.1:8443"))], None),
            (&[("/url", json!("https://[2001:db8::1]:443/sdk/"))], None),
            (
                &[("/vddkImage", json!(null)), ("/hosts", json!(null)), ("/trust", json!(null))],
                None,
            ),
            (&[("/url", json!(null))], Some("url is required for the types vsphere and xen")),
            (&[("/secretRef", json!(null))], Some("secretRef is required for the types vsphere")),
            (&[("/secretRef", json!({"name": ""}))], Some("spec.secretRef.name")),
            (&[("/url", json!("http://vc.example.com/sdk"))], Some(URL_HINT)),
            (&[("/url", json!("vpx://vc.example.com/DC/host"))], Some(URL_HINT)),
            (&[("/url", json!("https://root:secret@vc.example.com"))], Some(URL_HINT)),
            (&[("/url", json!("https://vc.example.com/sdk?no_verify=1"))], Some(URL_HINT)),
            (&[("/url", json!("https://vc.example.com/ui"))], Some(URL_HINT)),
            (&[("/url", json!("https://"))], Some(URL_HINT)),
            (
                &[("/sourceVolume", json!({"claimName": "x"}))],
                Some("sourceVolume is for the types"),
            ),
            (&[("/type", json!("hyperv"))], Some("Unsupported value: \"hyperv\"")),
            (&[("/type", json!(null))], Some("spec.type: Required value")),
        ],
    )
    .await;
}

#[tokio::test]
async fn trust_is_said_in_full() {
    judge(
        "Provider",
        &vsphere(),
        &[
            (&[("/trust", json!({"mode": "ca"}))], None),
            (&[("/trust", json!({"mode": "insecure"}))], None),
            (&[("/trust", json!({"mode": "thumbprint", "thumbprint": SHA1}))], None),
            (&[("/trust", json!({"thumbprint": sha256()}))], None),
            (
                &[("/trust", json!({"mode": "thumbprint"}))],
                Some("the thumbprint is required: `v2v-pod thumbprint HOST`"),
            ),
            (&[("/trust", json!({"thumbprint": SHA1.replace(':', "")}))], Some(PRINT_HINT)),
            (&[("/trust", json!({"thumbprint": &SHA1[3..]}))], Some(PRINT_HINT)),
            (&[("/trust", json!({"thumbprint": format!("{SHA1}:AA")}))], Some(PRINT_HINT)),
            (&[("/trust", json!({"thumbprint": SHA1.replace('B', "G")}))], Some(PRINT_HINT)),
            (&[("/trust", json!({"mode": "none"}))], Some("Unsupported value: \"none\"")),
        ],
    )
    .await;
}

#[tokio::test]
async fn hosts_have_addresses_of_their_own() {
    judge(
        "Provider",
        &vsphere(),
        &[
            (&[("/hosts/0/url", json!("esx://10.0.0.7:443/"))], None),
            (&[("/hosts/0/thumbprint", json!(SHA1))], None),
            (&[("/hosts/0/url", json!("https://esx1.example.com"))], Some(HOST_HINT)),
            (&[("/hosts/0/url", json!("esx://root@esx1.example.com"))], Some(HOST_HINT)),
            (&[("/hosts/0/url", json!("esx://esx1.example.com?no_verify=1"))], Some(HOST_HINT)),
            (
                &[("/hosts/0/secretRef", json!(null))],
                Some("spec.hosts[0].secretRef: Required value"),
            ),
            (&[("/hosts/0/thumbprint", json!("AA:BB"))], Some(PRINT_HINT)),
            (
                &[("/hosts", json!([vsphere()["hosts"][0], vsphere()["hosts"][0]]))],
                Some("Duplicate value"),
            ),
            (&[("/hosts", json!([]))], Some("should have at least 1 items")),
        ],
    )
    .await;
}

#[tokio::test]
async fn each_type_has_its_own_fields() {
    let xen = json!({"type": "xen", "url": "xen+ssh://root@xen.example.com", "secretRef": {"name": "xen"}});
    judge(
        "Provider",
        &xen,
        &[
            (&[], None),
            (&[("/url", json!("xen+ssh://xen.example.com:2222/"))], None),
            (&[("/sshLegacy", json!(true))], None),
            (&[("/url", json!("xen+ssh://root:secret@xen.example.com"))], Some(XEN_HINT)),
            (&[("/url", json!("https://xen.example.com"))], Some(XEN_HINT)),
            (&[("/url", json!("xen+ssh://xen.example.com/?no_verify=1"))], Some(XEN_HINT)),
            (&[("/url", json!(null))], Some("url is required for the types vsphere and xen")),
            (
                &[("/secretRef", json!(null))],
                Some("secretRef is required for the types vsphere and xen"),
            ),
            (
                &[("/vddkImage", json!("x"))],
                Some("vddkImage and hosts are for the type vsphere alone"),
            ),
            (
                &[("/hosts", vsphere()["hosts"].clone())],
                Some("vddkImage and hosts are for the type"),
            ),
            (
                &[("/trust", json!({"mode": "insecure"}))],
                Some("trust is for the type vsphere alone"),
            ),
            (
                &[("/trust", json!({"thumbprint": SHA1}))],
                Some("trust is for the type vsphere alone"),
            ),
        ],
    )
    .await;
    for kind in ["ova", "disk"] {
        let files = json!({"type": kind, "sourceVolume": {"claimName": "files"}});
        judge(
            "Provider",
            &files,
            &[
                (&[("/sshLegacy", json!(false))], Some("sshLegacy is for the type xen alone")),
                (&[], None),
                (&[("/sourceVolume", json!({"claimName": "files", "readOnly": false}))], None),
                (
                    &[("/sourceVolume", json!(null))],
                    Some("sourceVolume is required for the types ova and disk"),
                ),
                (
                    &[("/sourceVolume", json!({}))],
                    Some("spec.sourceVolume.claimName: Required value"),
                ),
                (&[("/url", json!("https://vc.example.com"))], Some("neither url nor secretRef")),
                (&[("/secretRef", json!({"name": "x"}))], Some("neither url nor secretRef")),
                (
                    &[("/vddkImage", json!("x"))],
                    Some("vddkImage and hosts are for the type vsphere alone"),
                ),
            ],
        )
        .await;
    }
}

#[tokio::test]
async fn the_type_stays_and_defaults_are_filled_in() {
    let providers = api("Provider", &super::ApiServer::shared().namespace()).await;
    let files = json!({"type": "ova", "sourceVolume": {"claimName": "files"}, "url": null});
    let made = providers
        .create(&PostParams::default(), &object("Provider", "files", &files))
        .await
        .unwrap();
    // A null is as good as nothing.
    let expected = json!({
        "type": "ova", "trust": {"mode": "auto"}, "sourceVolume": {"claimName": "files", "readOnly": true},
    });
    assert_eq!(made.data["spec"], expected);

    let patch = |spec: Value| Patch::Merge(json!({"spec": spec}));
    let params = PatchParams::default();
    let error =
        providers.patch("files", &params, &patch(json!({"type": "disk"}))).await.unwrap_err();
    assert!(error.to_string().contains("the type of a Provider cannot be changed"), "{error}");
    providers
        .patch("files", &params, &patch(json!({"sourceVolume": {"claimName": "other"}})))
        .await
        .unwrap();
}
