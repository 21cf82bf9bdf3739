package main

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestNormalise(t *testing.T) {
	const instance = ` xmlns:XMLSchema-instance="http://www.w3.org/2001/XMLSchema-instance"`
	for name, c := range map[string]struct{ in, out string }{
		"type": {
			`<val` + instance + ` XMLSchema-instance:type="xsd:string">a &lt;b&gt;</val>`,
			`<val xsi:type="xsd:string">a &lt;b&gt;</val>`,
		},
		"array of references": {
			`<val` + instance + ` XMLSchema-instance:type="ArrayOfManagedObjectReference"><ManagedObjectReference type="HostSystem">h</ManagedObjectReference></val>`,
			`<val xsi:type="ArrayOfManagedObjectReference"><ManagedObjectReference xsi:type="ManagedObjectReference" type="HostSystem">h</ManagedObjectReference></val>`,
		},
		"array of simple values": {
			`<val XMLSchema-instance:type="ArrayOfString"><string>x</string><string/></val>`,
			`<val xsi:type="ArrayOfString"><string xsi:type="xsd:string">x</string><string xsi:type="xsd:string"/></val>`,
		},
		"a child that says its own type, and grandchildren": {
			`<val XMLSchema-instance:type="ArrayOfVirtualDevice"><VirtualDevice XMLSchema-instance:type="VirtualDisk"><key>1</key></VirtualDevice></val><a>b</a>`,
			`<val xsi:type="ArrayOfVirtualDevice"><VirtualDevice xsi:type="VirtualDisk"><key>1</key></VirtualDevice></val><a>b</a>`,
		},
		"not XML": {`a < b`, `a < b`},
	} {
		if got := string(normalise([]byte(c.in))); got != c.out {
			t.Errorf("%s:\n got %s\nwant %s", name, got, c.out)
		}
	}
}

func TestRedact(t *testing.T) {
	for _, body := range []string{
		`<password xmlns="urn:vim25" xsi:type="xsd:string">s3cret</password>`,
		"<ns1:password>s3cret\n</ns1:password>",
	} {
		if got := redact(body); strings.Contains(got, "s3cret") {
			t.Errorf("%s", got)
		}
	}
}

func TestNamesInQueries(t *testing.T) {
	const name = "é/a+ 100%"
	for sent, want := range map[string]bool{
		"%C3%A9%2Fa%2B%20100%25":                 true, // quoted once
		"%25C3%25A9%252Fa%252B%2520100%2525":     true, // twice
		"%c3%a9%252fa%2b%20100%2525":             true, // as vCenter has the name, once
		"%25C3%25A9%25252fa%252B%2520100%252525": true, // twice
		"%C3%A9%2Fa%2B+100%25":                   true,
		"%C3%A9%2Fa%2B%2010":                     false,
		"":                                       false,
	} {
		query, err := url.ParseQuery("dsName=" + sent)
		if err != nil {
			t.Fatal(err)
		}
		if got := matches(query.Get("dsName"), name); got != want {
			t.Errorf("%s: %v", sent, got)
		}
	}
}

func TestPlaces(t *testing.T) {
	var disks []Disk
	for _, kind := range []string{"pvscsi", "ide", "lsilogic", "ide", "pvscsi", "ide", "nvme", "sata"} {
		disks = append(disks, Disk{Controller: kind})
	}
	var got []string
	for _, p := range places(disks) {
		got = append(got, p.device())
	}
	want := "scsi0:0 ide0:0 scsi1:0 ide0:1 scsi0:1 ide1:0 nvme0:0 sata0:0"
	if strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
	for id, want := range map[string]string{
		"debian10_64Guest": "debian10-64", "otherGuest64": "other-64", "otherLinux64Guest": "otherlinux-64", "otherGuest": "other",
	} {
		if got := vmxGuest(id); got != want {
			t.Errorf("%s: %s, want %s", id, got, want)
		}
	}
}

func TestConfigErrors(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "ds/web"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ds/web/web-flat.vmdk"), make([]byte, 1024), 0o644); err != nil {
		t.Fatal(err)
	}
	const good = `{"mode": "vpx", "listen": "[::1]:0", "certificate": "c", "key": "k", "user": "u", "password": "p",
		"datacenter": "DC", "host": "h", "datastores": [{"name": "ds", "directory": "ds"}],
		"vms": [{"name": "web", "uuid": "42000000-1111-2222-3333-444455556666", "disks": [{"path": "[ds] web/web.vmdk"}]}]}`
	for _, c := range []struct{ old, new, want string }{
		{"", "", ""},
		{`"vpx"`, `"vcenter"`, `mode "vcenter"`},
		{`"vpx"`, `"esx"`, `esx has no datacenter`},
		{`"mode"`, `"modus"`, `unknown field "modus"`},
		{`[::1]:0`, `::1`, `listen:`},
		{`"p",`, `"",`, `password`},
		{`"[ds] web/web.vmdk"`, `"[other] web/web.vmdk"`, `no datastore has this name`},
		{`"[ds] web/web.vmdk"`, `"web/web.vmdk"`, `is not [datastore]`},
		{`"[ds] web/web.vmdk"`, `"[ds] ../web.vmdk"`, `not the shortest`},
		{`"[ds] web/web.vmdk"`, `"[ds] web/web.vmdk", "bytes": 512`, `has 1024 bytes, not 512`},
		{`"[ds] web/web.vmdk"`, `"[ds] web/web.vmdk", "controller": "virtio"`, `controller "virtio"`},
		{`42000000-`, `x`, `uuid`},
		{`"name": "web",`, `"name": "web", "memory_mib": 1023,`, `memory_mib`},
		{`"vms": [`, `"vms": [{"name": "w", "uuid": "42000000-1111-2222-3333-444455556667", "vmx": "[ds] web/w.vmx"},`, `in the folder of "w"`},
		{`"host": "h",`, `"host": "h", "datacenter_folder": [""],`, `a name is empty`},
		{`"host": "h",`, `"host": "h", "faults": {"refuse": 1.5},`, `fractions from 0 to 1`},
		{`"host": "h",`, `"host": "h", "session_life_s": -1,`, `negative`},
	} {
		file := filepath.Join(dir, "lab.json")
		if err := os.WriteFile(file, []byte(strings.Replace(good, c.old, c.new, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := readConfig(file)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.new, err, c.want)
		}
	}
}
