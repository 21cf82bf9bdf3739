package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// Config is the JSON file of --config. Unknown keys are errors; relative file names are relative to the file. Names are
// given as people type them; where vCenter encodes them is our matter.
type Config struct {
	// Mode is "vpx" (vCenter) or "esx" (a host by itself: no datacenter, no cluster).
	Mode string `json:"mode"`
	// Listen is host:port; port 0 takes a free one.
	Listen string `json:"listen"`
	// Certificate (the server's, then any intermediates) and Key are PEM files.
	Certificate string `json:"certificate"`
	Key         string `json:"key"`
	User        string `json:"user"`
	Password    string `json:"password"`

	Datacenter string `json:"datacenter"`
	Cluster    string `json:"cluster"` // empty: the host stands alone
	Host       string `json:"host"`
	// DatacenterFolder has the names of the folders around the datacenter, HostFolder those around the cluster or host.
	DatacenterFolder []string `json:"datacenter_folder"`
	HostFolder       []string `json:"host_folder"`
	// MoreHosts are further hosts of a vCenter; VMs name them. All have all datastores.
	MoreHosts  []Place     `json:"more_hosts"`
	Datastores []Datastore `json:"datastores"`
	VMs        []VM        `json:"vms"`

	// SessionIdleS ends a session unused for so long, SessionLifeS one begun so long ago; 0 never does.
	SessionIdleS float64 `json:"session_idle_s"`
	SessionLifeS float64 `json:"session_life_s"`
	Faults       Faults  `json:"faults"`
}

// Place is a host and where it is. Datacenters, clusters and folders are shared by their names.
type Place struct {
	DatacenterFolder []string `json:"datacenter_folder"`
	Datacenter       string   `json:"datacenter"`
	HostFolder       []string `json:"host_folder"`
	Cluster          string   `json:"cluster"`
	Host             string   `json:"host"`
}

// hosts are all places, the main one first.
func (c *Config) hosts() []Place {
	main := Place{c.DatacenterFolder, c.Datacenter, c.HostFolder, c.Cluster, c.Host}
	return append([]Place{main}, c.MoreHosts...)
}

// Datastore is a folder of this machine shown as a datastore. Nothing but missing .vmx and .vmdk files is written there.
type Datastore struct {
	Name      string `json:"name"`
	Directory string `json:"directory"`
}

// VM is one virtual machine; what is left out takes the default named here.
type VM struct {
	Name      string     `json:"name"`
	Host      string     `json:"host"`   // one of more_hosts; the main one
	Folder    []string   `json:"folder"` // the folders below the datacenter's "vm"
	UUID      string     `json:"uuid"`
	Power     string     `json:"power"`      // off (default), on, suspended
	Guest     string     `json:"guest"`      // API identifier, otherLinux64Guest
	Firmware  string     `json:"firmware"`   // bios (default), efi
	MemoryMiB int64      `json:"memory_mib"` // 1024
	CPUs      int32      `json:"cpus"`       // 1
	VMX       string     `json:"vmx"`        // "[datastore] folder/name.vmx": beside the first disk, named as the VM
	NICs      []NIC      `json:"nics"`
	Disks     []Disk     `json:"disks"`
	Snapshots []Snapshot `json:"snapshots"`
}

// NIC is a vmxnet3 card.
type NIC struct {
	Network string `json:"network"`
	MAC     string `json:"mac"`
}

// Disk is a flat virtual disk.
type Disk struct {
	Path       string `json:"path"`       // "[datastore] folder/name.vmdk"
	Bytes      int64  `json:"bytes"`      // the size of the -flat.vmdk when 0
	Controller string `json:"controller"` // pvscsi (default), lsilogic, lsisas1068, buslogic, ide, sata, nvme
	// Place is where it hangs, "scsi1:3"; the next free place of the controller's kind.
	Place string `json:"place"`
	// Independent disks take no part in snapshots.
	Independent bool `json:"independent"`
}

// Snapshot is a snapshot of the VM, without its memory. Each gives each disk that takes part another file, empty unless the
// caller brings one: web-000001.vmdk with web-000001-delta.vmdk upon web.vmdk, and so on; the VM uses the last.
type Snapshot struct {
	Name        string `json:"name"`
	Description string `json:"description"`
}

// Faults are what the network does to the clients. /vclab/stats says how often it did.
type Faults struct {
	// Drop is the fraction of the GETs of -flat.vmdk files cut off, anywhere in the body.
	Drop float64 `json:"drop"`
	// Refuse is the fraction of the new connections closed at once.
	Refuse float64 `json:"refuse"`
	// AfterBytes puts Drop and Refuse off until so much of the -flat.vmdk files has been sent.
	AfterBytes int64 `json:"after_bytes"`
	// EndSessionAt ends, once, the session of the SOAP request of this number, before it is answered; 0 never does.
	EndSessionAt int64 `json:"end_session_at"`
	// LatencyMS is added before each reply.
	LatencyMS int `json:"latency_ms"`
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func readConfig(file string) (*Config, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	c := &Config{}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(c); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: more than one JSON value", file)
	}
	base, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return nil, err
	}
	if err := c.complete(base); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return c, nil
}

// complete fills in the defaults and says the first thing that is wrong.
func (c *Config) complete(base string) error {
	switch c.Mode {
	case "vpx":
		if c.Datacenter == "" || c.Host == "" {
			return errors.New("vpx needs datacenter and host")
		}
	case "esx":
		if c.Datacenter != "" || c.Cluster != "" || c.Host != "" || len(c.DatacenterFolder)+len(c.HostFolder) > 0 {
			return errors.New("esx has no datacenter, cluster or host")
		}
		c.Datacenter = esxDatacenter
	default:
		return fmt.Errorf("mode %q: vpx or esx", c.Mode)
	}
	if c.Mode == "esx" && len(c.MoreHosts) > 0 {
		return errors.New("esx has no more_hosts")
	}
	for i, place := range c.hosts() {
		if i > 0 && (place.Datacenter == "" || place.Host == "") {
			return fmt.Errorf("more_hosts[%d]: datacenter and host are needed", i-1)
		}
		for _, name := range append(place.DatacenterFolder[:len(place.DatacenterFolder):len(place.DatacenterFolder)], place.HostFolder...) {
			if name == "" {
				return errors.New("datacenter_folder or host_folder: a name is empty")
			}
		}
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	for _, file := range []struct {
		name string
		path *string
	}{{"certificate", &c.Certificate}, {"key", &c.Key}} {
		if *file.path == "" {
			return fmt.Errorf("%s is missing", file.name)
		}
		*file.path = below(base, *file.path)
	}
	if c.User == "" || c.Password == "" {
		return errors.New("user and password are needed")
	}
	if c.SessionIdleS < 0 || c.SessionLifeS < 0 {
		return errors.New("session_idle_s or session_life_s is negative")
	}
	if err := c.Faults.check(); err != nil {
		return fmt.Errorf("faults: %w", err)
	}
	if len(c.Datastores) == 0 {
		return errors.New("datastores: at least one is needed")
	}
	for i := range c.Datastores {
		d := &c.Datastores[i]
		if d.Name == "" || strings.ContainsAny(d.Name, "[]") {
			return fmt.Errorf("datastores[%d]: name %q: empty or with brackets", i, d.Name)
		}
		if other := c.datastore(d.Name); other != d {
			return fmt.Errorf("datastores[%d]: name %q is there twice", i, d.Name)
		}
		d.Directory = below(base, d.Directory)
		if info, err := os.Stat(d.Directory); err != nil {
			return fmt.Errorf("datastores[%d]: %w", i, err)
		} else if !info.IsDir() {
			return fmt.Errorf("datastores[%d]: %s is not a folder", i, d.Directory)
		}
	}
	used, places := map[string]string{}, map[string]bool{}
	for i := range c.VMs {
		vm := &c.VMs[i]
		if err := c.completeVM(vm); err != nil {
			return fmt.Errorf("vms[%d] %q: %w", i, vm.Name, err)
		}
		home := path.Dir(vm.VMX) // the simulator wants one for each
		if other, ok := used[home]; ok {
			return fmt.Errorf("vms[%d] %q: vmx %s is in the folder of %q", i, vm.Name, vm.VMX, other)
		}
		used[home] = vm.Name
		host, ok := c.hostOf(vm)
		if !ok {
			return fmt.Errorf("vms[%d] %q: no host is called %q", i, vm.Name, vm.Host)
		}
		datacenter := append(host.DatacenterFolder[:len(host.DatacenterFolder):len(host.DatacenterFolder)], host.Datacenter)
		place := fmt.Sprintf("%q %q", datacenter, append(vm.Folder[:len(vm.Folder):len(vm.Folder)], vm.Name))
		if places[place] {
			return fmt.Errorf("vms[%d] %q: its folder has a VM of this name", i, vm.Name)
		}
		places[place] = true
	}
	return nil
}

func (c *Config) hostOf(vm *VM) (Place, bool) {
	hosts := c.hosts()
	if vm.Host == "" {
		return hosts[0], true
	}
	for _, place := range hosts {
		if place.Host == vm.Host {
			return place, true
		}
	}
	return Place{}, false
}

func (f *Faults) check() error {
	for _, fraction := range []float64{f.Drop, f.Refuse} {
		if fraction < 0 || fraction > 1 {
			return errors.New("drop and refuse are fractions from 0 to 1")
		}
	}
	if f.LatencyMS < 0 || f.AfterBytes < 0 {
		return errors.New("latency_ms or after_bytes is negative")
	}
	return nil
}

var (
	uuidForm  = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	placeForm = regexp.MustCompile(`^(scsi|sata|ide|nvme)([0-3]):([0-9]{1,2})$`)
	macForm   = regexp.MustCompile(`^([0-9a-f]{2}:){5}[0-9a-f]{2}$`)
)

func (c *Config) completeVM(vm *VM) error {
	if vm.Name == "" {
		return errors.New("name is missing")
	}
	if c.Mode == "esx" && len(vm.Folder) > 0 {
		return errors.New("a host by itself has no folders")
	}
	for _, name := range vm.Folder {
		if name == "" {
			return errors.New("folder: a name is empty")
		}
	}
	vm.UUID = strings.ToLower(vm.UUID)
	if !uuidForm.MatchString(vm.UUID) {
		return fmt.Errorf("uuid %q is none", vm.UUID)
	}
	for _, choice := range []struct {
		key     string
		value   *string
		allowed []string
	}{
		{"power", &vm.Power, []string{"off", "on", "suspended"}},
		{"firmware", &vm.Firmware, []string{"bios", "efi"}},
	} {
		if err := choose(choice.key, choice.value, choice.allowed); err != nil {
			return err
		}
	}
	if vm.Guest == "" {
		vm.Guest = "otherLinux64Guest"
	}
	if vm.MemoryMiB == 0 {
		vm.MemoryMiB = 1024
	}
	if vm.CPUs == 0 {
		vm.CPUs = 1
	}
	// libvirt refuses a .vmx whose memory is no multiple of 4 MiB.
	if vm.MemoryMiB < 4 || vm.MemoryMiB%4 != 0 || vm.CPUs < 1 {
		return errors.New("memory_mib is a multiple of 4, cpus at least 1")
	}
	for i := range vm.NICs {
		nic := &vm.NICs[i]
		nic.MAC = strings.ToLower(nic.MAC)
		if nic.Network == "" || !macForm.MatchString(nic.MAC) {
			return fmt.Errorf("nics[%d]: network and mac are needed (mac %q)", i, nic.MAC)
		}
	}
	for i := range vm.Disks {
		if err := c.completeDisk(&vm.Disks[i]); err != nil {
			return fmt.Errorf("disks[%d]: %w", i, err)
		}
		if len(vm.Snapshots) > 0 && vm.Disks[i].Bytes > maximumDelta {
			return fmt.Errorf("disks[%d]: a disk with snapshots has at most %d bytes", i, int64(maximumDelta))
		}
	}
	taken := map[string]bool{}
	for _, place := range places(vm.Disks) {
		if taken[place.device()] {
			return fmt.Errorf("two disks are %s", place.device())
		}
		taken[place.device()] = true
	}
	for i, snapshot := range vm.Snapshots {
		if snapshot.Name == "" {
			return fmt.Errorf("snapshots[%d]: name is missing", i)
		}
	}
	if vm.VMX == "" {
		at := filePath{datastore: c.Datastores[0].Name, name: encodeName(vm.Name)}
		if len(vm.Disks) > 0 {
			disk, _ := parseFilePath(vm.Disks[0].Path)
			at = filePath{datastore: disk.datastore, name: path.Dir(disk.name)}
		}
		at.name = path.Join(at.name, encodeName(vm.Name)+".vmx")
		vm.VMX = at.String()
	}
	at, err := c.file("vmx", vm.VMX, ".vmx")
	if err != nil {
		return err
	}
	if path.Dir(at.name) == "." {
		return fmt.Errorf("vmx %s: a VM has a folder of its own", vm.VMX)
	}
	return nil
}

func (c *Config) completeDisk(disk *Disk) error {
	at, err := c.file("path", disk.Path, ".vmdk")
	if err != nil {
		return err
	}
	flat := filepath.Join(c.datastore(at.datastore).Directory, flatName(at.name))
	info, err := os.Stat(flat)
	if err != nil {
		return err
	}
	if disk.Bytes == 0 {
		disk.Bytes = info.Size()
	}
	if disk.Bytes != info.Size() || disk.Bytes <= 0 || disk.Bytes%512 != 0 {
		return fmt.Errorf("%s has %d bytes, not %d in whole sectors", flat, info.Size(), disk.Bytes)
	}
	if disk.Place != "" {
		match := placeForm.FindStringSubmatch(disk.Place)
		if match == nil {
			return fmt.Errorf("place %q is not like scsi1:3", disk.Place)
		}
		if disk.Controller == "" && match[1] != "scsi" {
			disk.Controller = match[1]
		}
	}
	return choose("controller", &disk.Controller,
		[]string{"pvscsi", "lsilogic", "lsisas1068", "buslogic", "ide", "sata", "nvme"})
}

// file checks a path in a known datastore.
func (c *Config) file(key, text, suffix string) (filePath, error) {
	at, err := parseFilePath(text)
	if err != nil {
		return at, fmt.Errorf("%s: %w", key, err)
	}
	if c.datastore(at.datastore) == nil {
		return at, fmt.Errorf("%s %s: no datastore has this name", key, text)
	}
	if !strings.HasSuffix(at.name, suffix) {
		return at, fmt.Errorf("%s %s does not end with %s", key, text, suffix)
	}
	return at, nil
}

func (c *Config) datastore(name string) *Datastore {
	for i := range c.Datastores {
		if c.Datastores[i].Name == name {
			return &c.Datastores[i]
		}
	}
	return nil
}

// filePath is vSphere's "[datastore] folder/name".
type filePath struct{ datastore, name string }

func (p filePath) String() string { return "[" + p.datastore + "] " + p.name }

func parseFilePath(text string) (filePath, error) {
	end := strings.Index(text, "] ")
	if !strings.HasPrefix(text, "[") || end < 2 {
		return filePath{}, fmt.Errorf("%q is not [datastore] folder/name", text)
	}
	p := filePath{datastore: text[1:end], name: text[end+2:]}
	if p.name == "" || p.name == ".." || path.Clean("/" + p.name)[1:] != p.name {
		return p, fmt.Errorf("%q: the name is empty, absolute or not the shortest", text)
	}
	return p, nil
}

func flatName(descriptor string) string {
	return strings.TrimSuffix(descriptor, ".vmdk") + "-flat.vmdk"
}

// encodeName is what vCenter makes of a name typed by a person: these three characters never stand in an entity's name.
func encodeName(name string) string {
	return strings.NewReplacer("%", "%25", "/", "%2f", `\`, "%5c").Replace(name)
}

func choose(key string, value *string, allowed []string) error {
	if *value == "" {
		*value = allowed[0]
	}
	for _, a := range allowed {
		if *value == a {
			return nil
		}
	}
	return fmt.Errorf("%s %q: one of %s", key, *value, strings.Join(allowed, ", "))
}

func below(base, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(base, name)
}
