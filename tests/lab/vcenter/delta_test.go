package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSnapshotFiles(t *testing.T) {
	dir := t.TempDir()
	config := &Config{Datastores: []Datastore{{Name: "ds", Directory: dir}}}
	vm := &VM{
		Name:      "web",
		UUID:      "42000000-1111-2222-3333-444455556666",
		VMX:       "[ds] web/web.vmx",
		Disks:     []Disk{{Path: "[ds] web/web.vmdk", Bytes: 3 << 20}, {Path: "[ds] web/data.vmdk", Bytes: 512, Independent: true}},
		Snapshots: []Snapshot{{Name: "one"}, {Name: "two"}},
	}
	if got := fmt.Sprint(vm.chain(&vm.Disks[0])); got != "[[ds] web/web.vmdk [ds] web/web-000001.vmdk [ds] web/web-000002.vmdk]" {
		t.Error(got)
	}
	if got := fmt.Sprint(vm.chain(&vm.Disks[1])); got != "[[ds] web/data.vmdk]" {
		t.Error(got)
	}
	if err := config.writeFiles(vm); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"web.vmx":         `fileName = "web-000002.vmdk"`,
		"web.vmdk":        `RW 6144 VMFS "web-flat.vmdk"`,
		"web-000001.vmdk": `parentFileNameHint="web.vmdk"`,
		"web-000002.vmdk": `RW 6144 VMFSSPARSE "web-000002-delta.vmdk"`,
	} {
		text, err := os.ReadFile(filepath.Join(dir, "web", name))
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: %v, %s\nwant %s", name, err, text, want)
		}
	}
	// A mebibyte more than a grain table's reach: two tables, one sector of directory after the header's four.
	delta, err := os.ReadFile(filepath.Join(dir, "web", "web-000001-delta.vmdk"))
	if err != nil || len(delta) != 5*512 || string(delta[:4]) != "COWD" {
		t.Fatal(err, len(delta))
	}
	if sectors, tables := binary.LittleEndian.Uint32(delta[12:]), binary.LittleEndian.Uint32(delta[24:]); sectors != 6144 || tables != 2 {
		t.Error(sectors, tables)
	}
}
