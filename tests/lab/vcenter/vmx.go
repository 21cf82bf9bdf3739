package main

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// writeFiles writes the .vmx and the descriptors of the disks that the datastores do not have yet.
func (c *Config) writeFiles(vm *VM) error {
	at, err := parseFilePath(vm.VMX)
	if err != nil {
		return err
	}
	if err := c.writeNew(at, c.vmxText(vm, at)); err != nil {
		return err
	}
	for i := range vm.Disks {
		disk := &vm.Disks[i]
		for j, at := range vm.chain(disk) {
			if j == 0 {
				err = c.writeNew(at, descriptorText(disk, at))
			} else {
				err = c.writeDelta(vm, disk, j)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Config) writeNew(at filePath, text string) error {
	name := filepath.Join(c.datastore(at.datastore).Directory, filepath.FromSlash(at.name))
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	if closed := file.Close(); err == nil {
		err = closed
	}
	return err
}

// mountPath is where hosts have a datastore; libvirt finds a disk's datastore by it.
func (c *Config) mountPath(datastore string) string {
	for i := range c.Datastores {
		if c.Datastores[i].Name == datastore {
			return fmt.Sprintf("/vmfs/volumes/5f000000-00000000-0000-0000000000%02x", i)
		}
	}
	return ""
}

func (c *Config) vmxText(vm *VM, at filePath) string {
	var text strings.Builder
	set := func(key, value string) { fmt.Fprintf(&text, "%s = \"%s\"\n", key, vmxEscape(value)) }
	set(".encoding", "UTF-8")
	set("config.version", "8")
	set("virtualHW.version", "13")
	set("displayName", encodeName(vm.Name))
	set("uuid.bios", vmxUUID(vm.UUID))
	set("guestOS", vmxGuest(vm.Guest))
	if vm.Firmware != "bios" { // libvirt refuses the word
		set("firmware", vm.Firmware)
	}
	set("memSize", fmt.Sprint(vm.MemoryMiB))
	set("numvcpus", fmt.Sprint(vm.CPUs))
	set("vmci0.present", "TRUE")
	present := map[string]bool{}
	for _, place := range places(vm.Disks) {
		if !present[place.controller()] {
			present[place.controller()] = true
			set(place.controller()+".present", "TRUE")
			if place.bus == "scsi" {
				set(place.controller()+".virtualDev", place.disk.Controller)
			}
		}
		device := place.device()
		set(device+".present", "TRUE")
		if place.bus == "scsi" {
			set(device+".deviceType", "scsi-hardDisk")
		}
		set(device+".fileName", c.vmxFileName(vm, place.disk, at))
		if place.disk.Independent {
			set(device+".mode", "independent-persistent")
		}
	}
	for i, nic := range vm.NICs {
		card := fmt.Sprintf("ethernet%d", i)
		set(card+".present", "TRUE")
		set(card+".virtualDev", "vmxnet3")
		set(card+".networkName", nic.Network)
		set(card+".addressType", "static")
		set(card+".address", nic.MAC)
	}
	return text.String()
}

// vmxFileName is relative to the .vmx where it can be.
func (c *Config) vmxFileName(vm *VM, disk *Disk, vmx filePath) string {
	chain := vm.chain(disk)
	at := chain[len(chain)-1]
	if at.datastore == vmx.datastore && path.Dir(at.name) == path.Dir(vmx.name) {
		return path.Base(at.name)
	}
	return path.Join(c.mountPath(at.datastore), at.name)
}

// place is where a disk hangs: there is one controller of each kind (two disks to an IDE channel), the SCSI kinds numbered together.
type place struct {
	disk         *Disk
	bus          string
	number, slot int
}

func (p place) controller() string { return fmt.Sprintf("%s%d", p.bus, p.number) }
func (p place) device() string     { return fmt.Sprintf("%s%d:%d", p.bus, p.number, p.slot) }

func places(disks []Disk) []place {
	used := map[string]int{}   // disks by kind of controller
	number := map[string]int{} // of the controller
	scsi := 0
	var list []place
	for i := range disks {
		disk := &disks[i]
		kind := disk.Controller
		if match := placeForm.FindStringSubmatch(disk.Place); match != nil {
			number, _ := strconv.Atoi(match[2])
			slot, _ := strconv.Atoi(match[3])
			list = append(list, place{disk, match[1], number, slot})
			continue
		}
		p := place{disk: disk, bus: kind, slot: used[kind]}
		switch kind {
		case "sata", "nvme":
		case "ide":
			p.number, p.slot = p.slot/2, p.slot%2
		default:
			p.bus = "scsi"
			if used[kind] == 0 {
				number[kind] = scsi
				scsi++
			}
			p.number = number[kind]
			if p.slot >= 7 { // the adapter's own
				p.slot++
			}
		}
		used[kind]++
		list = append(list, p)
	}
	return list
}

var sixtyFour = regexp.MustCompile(`_?64$`)

// vmxGuest is the guest's identifier as the file has it: libvirt takes the architecture from a -64 at its end.
func vmxGuest(id string) string {
	return strings.ToLower(sixtyFour.ReplaceAllString(strings.Replace(id, "Guest", "", 1), "-64"))
}

// vmxUUID groups the digits as "56 4d … -…".
func vmxUUID(uuid string) string {
	digits := strings.ReplaceAll(uuid, "-", "")
	var parts []string
	for i := 0; i < len(digits); i += 2 {
		parts = append(parts, digits[i:i+2])
	}
	return strings.Join(parts[:8], " ") + "-" + strings.Join(parts[8:], " ")
}

func vmxEscape(value string) string {
	return strings.NewReplacer("|", "|7C", `"`, "|22", "\n", "|0A").Replace(value)
}

// descriptorText is the small text file beside the -flat.vmdk.
func descriptorText(disk *Disk, at filePath) string {
	adapter := "lsilogic"
	switch disk.Controller {
	case "ide", "buslogic":
		adapter = disk.Controller
	}
	sectors := disk.Bytes / 512
	return fmt.Sprintf(`# Disk DescriptorFile
version=1
encoding="UTF-8"
CID=fffffffe
parentCID=ffffffff
createType="vmfs"

# Extent description
RW %d VMFS "%s"

# The Disk Data Base
ddb.adapterType = "%s"
ddb.geometry.cylinders = "%d"
ddb.geometry.heads = "255"
ddb.geometry.sectors = "63"
ddb.virtualHWVersion = "13"
`, sectors, flatName(path.Base(at.name)), adapter, sectors/(255*63))
}
