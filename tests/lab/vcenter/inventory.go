package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/simulator/esx"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

const esxDatacenter = "ha-datacenter"

// inventory is the simulator filled with what the configuration names, through the simulator's own API.
type inventory struct {
	config  *Config
	service *simulator.Service
	client  *vim25.Client
	// scratch has the simulator's idea of the datastores: it makes files for each VM, which nobody is to see.
	scratch string

	// home has what is where, by the host's name as typed.
	home map[string]*home
}

// home is a host and what belongs to it.
type home struct {
	host    *object.HostSystem
	pool    *object.ResourcePool
	folders *object.DatacenterFolders
}

func buildInventory(ctx context.Context, c *Config, scratch string) (*inventory, error) {
	model := simulator.VPX()
	if c.Mode == "esx" {
		model = simulator.ESX()
	}
	// Nothing of the model's own.
	model.Datacenter, model.Datastore, model.Machine, model.Autostart = 0, 0, 0, false
	if err := model.Create(); err != nil {
		return nil, fmt.Errorf("simulator: %w", err)
	}
	service := model.Service
	service.Listen = &url.URL{User: url.UserPassword(c.User, "")}
	simulator.Map.SessionManager().ValidLogin = func(login *types.Login) bool {
		return c.login(login.UserName, login.Password)
	}
	service.RegisterSDK(simulator.Map, simulator.Map.Path+"/vimService")
	client, err := vim25.NewClient(ctx, service)
	if err != nil {
		return nil, fmt.Errorf("simulator: %w", err)
	}
	inv := &inventory{config: c, service: service, client: client, scratch: scratch, home: map[string]*home{}}
	for _, place := range c.hosts() {
		home, err := inv.addHost(ctx, place)
		if err != nil {
			return nil, fmt.Errorf("host %q: %w", place.Host, err)
		}
		inv.home[place.Host] = home
		for i, datastore := range c.Datastores {
			if err := inv.addDatastore(ctx, home, i, datastore); err != nil {
				return nil, fmt.Errorf("datastore %q: %w", datastore.Name, err)
			}
		}
		if err := inv.addNetworks(ctx, home); err != nil {
			return nil, err
		}
	}
	for i := range c.VMs {
		vm := &c.VMs[i]
		if err := inv.addVM(ctx, fmt.Sprintf("vm%d", i), vm); err != nil {
			return nil, fmt.Errorf("vm %q: %w", vm.Name, err)
		}
		if err := c.writeFiles(vm); err != nil {
			return nil, fmt.Errorf("vm %q: %w", vm.Name, err)
		}
	}
	return inv, nil
}

// finish waits for a task and returns what it made.
func finish(ctx context.Context, task *object.Task, err error) (types.ManagedObjectReference, error) {
	var made types.ManagedObjectReference
	if err != nil {
		return made, err
	}
	info, err := task.WaitForResult(ctx, nil)
	if err != nil {
		return made, err
	}
	made, _ = info.Result.(types.ManagedObjectReference)
	return made, nil
}

func (inv *inventory) addHost(ctx context.Context, place Place) (*home, error) {
	made := &home{}
	var err error
	if inv.config.Mode == "esx" {
		made.host = object.NewHostSystem(inv.client, esx.HostSystem.Reference())
		made.folders, err = object.NewDatacenter(inv.client, esx.Datacenter.Reference()).Folders(ctx)
	} else {
		err = inv.addToDatacenter(ctx, place, made)
	}
	if err != nil {
		return nil, err
	}
	made.pool, err = made.host.ResourcePool(ctx)
	return made, err
}

func (inv *inventory) addToDatacenter(ctx context.Context, place Place, made *home) error {
	search := object.NewSearchIndex(inv.client)
	folder, err := inv.folder(ctx, object.NewRootFolder(inv.client), place.DatacenterFolder)
	if err != nil {
		return err
	}
	found, err := search.FindChild(ctx, folder, encodeName(place.Datacenter))
	if err != nil {
		return err
	}
	datacenter, ok := found.(*object.Datacenter)
	if !ok {
		if datacenter, err = folder.CreateDatacenter(ctx, encodeName(place.Datacenter)); err != nil {
			return err
		}
	}
	if made.folders, err = datacenter.Folders(ctx); err != nil {
		return err
	}
	if folder, err = inv.folder(ctx, made.folders.HostFolder, place.HostFolder); err != nil {
		return err
	}
	spec := types.HostConnectSpec{HostName: encodeName(place.Host)}
	var task *object.Task
	if place.Cluster == "" {
		task, err = folder.AddStandaloneHost(ctx, spec, true, nil, nil)
	} else {
		found, failed := search.FindChild(ctx, folder, encodeName(place.Cluster))
		if failed != nil {
			return failed
		}
		cluster, ok := found.(*object.ClusterComputeResource)
		if !ok {
			if cluster, err = folder.CreateCluster(ctx, encodeName(place.Cluster), types.ClusterConfigSpecEx{}); err != nil {
				return err
			}
		}
		task, err = cluster.AddHost(ctx, spec, true, nil, nil)
	}
	host, err := finish(ctx, task, err)
	made.host = object.NewHostSystem(inv.client, host)
	return err
}

func (inv *inventory) addDatastore(ctx context.Context, home *home, i int, datastore Datastore) error {
	dir := filepath.Join(inv.scratch, fmt.Sprint(i))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	system, err := home.host.ConfigManager().DatastoreSystem(ctx)
	if err != nil {
		return err
	}
	made, err := system.CreateLocalDatastore(ctx, datastore.Name, dir)
	if err != nil {
		return err
	}
	entity := simulator.Map.Get(made.Reference()).(*simulator.Datastore)
	// The simulator keeps only the first host of a datastore that several have.
	mounted := false
	for _, mount := range entity.Host {
		mounted = mounted || mount.Key == home.host.Reference()
	}
	if !mounted {
		entity.Host = append(entity.Host, types.DatastoreHostMount{Key: home.host.Reference(), MountInfo: entity.Host[0].MountInfo})
	}
	for j := range entity.Host {
		entity.Host[j].MountInfo.Path = inv.config.mountPath(datastore.Name)
	}
	return nil
}

// addNetworks makes a port group of each name the VMs use.
func (inv *inventory) addNetworks(ctx context.Context, home *home) error {
	system, err := home.host.ConfigManager().NetworkSystem(ctx)
	if err != nil {
		return err
	}
	done := map[string]bool{"VM Network": true} // the simulator has it from the start
	for _, vm := range inv.config.VMs {
		for _, nic := range vm.NICs {
			if done[nic.Network] {
				continue
			}
			done[nic.Network] = true
			spec := types.HostPortGroupSpec{Name: nic.Network, VswitchName: "vSwitch0"}
			// Hosts of one datacenter share it.
			if err := system.AddPortGroup(ctx, spec); err != nil && !isDuplicate(err) {
				return fmt.Errorf("network %q: %w", nic.Network, err)
			}
		}
	}
	return nil
}

func isDuplicate(err error) bool {
	if !soap.IsSoapFault(err) {
		return false
	}
	// In one process the fault is the simulator's own.
	switch soap.ToSoapFault(err).VimFault().(type) {
	case types.DuplicateName, *types.DuplicateName:
		return true
	}
	return false
}

// addVM makes the VM under a plain name first: the simulator doubles the devices of one whose name it has to encode.
func (inv *inventory) addVM(ctx context.Context, plain string, vm *VM) error {
	place, _ := inv.config.hostOf(vm)
	home := inv.home[place.Host]
	folder, err := inv.folder(ctx, home.folders.VmFolder, vm.Folder)
	if err != nil {
		return err
	}
	spec := types.VirtualMachineConfigSpec{
		Name:     plain,
		Uuid:     vm.UUID,
		GuestId:  vm.Guest,
		Firmware: vm.Firmware,
		NumCPUs:  vm.CPUs,
		MemoryMB: vm.MemoryMiB,
		Files:    &types.VirtualMachineFileInfo{VmPathName: vm.VMX},
	}
	if spec.DeviceChange, err = inv.devices(vm); err != nil {
		return err
	}
	task, err := folder.CreateVM(ctx, spec, home.pool, home.host)
	ref, err := finish(ctx, task, err)
	if err != nil {
		return err
	}
	setName(ref, encodeName(vm.Name))
	made := object.NewVirtualMachine(inv.client, ref)
	for i, snapshot := range vm.Snapshots {
		task, err := made.CreateSnapshot(ctx, snapshot.Name, snapshot.Description, false, false)
		if _, err := finish(ctx, task, err); err != nil {
			return fmt.Errorf("snapshot %q: %w", snapshot.Name, err)
		}
		startDeltas(ref, vm, i)
	}
	if vm.Power != "off" {
		task, err := made.PowerOn(ctx)
		if _, err := finish(ctx, task, err); err != nil {
			return err
		}
	}
	if vm.Power == "suspended" {
		task, err := made.Suspend(ctx)
		if _, err := finish(ctx, task, err); err != nil {
			return err
		}
	}
	return nil
}

func setName(ref types.ManagedObjectReference, name string) {
	vm := simulator.Map.Get(ref).(*simulator.VirtualMachine)
	simulator.Map.Update(vm, []types.PropertyChange{
		{Name: "name", Val: name},
		{Name: "config.name", Val: name},
		{Name: "summary.config.name", Val: name},
	})
}

// startDeltas makes the VM write to the files after the (i+1)th snapshot, which the simulator leaves out. The snapshot keeps
// the devices it has.
func startDeltas(ref types.ManagedObjectReference, vm *VM, i int) {
	next := map[string]string{}
	for _, disk := range vm.Disks {
		if chain := vm.chain(&disk); i+1 < len(chain) {
			next[chain[i].String()] = chain[i+1].String()
		}
	}
	entity := simulator.Map.Get(ref).(*simulator.VirtualMachine)
	devices := append([]types.BaseVirtualDevice(nil), entity.Config.Hardware.Device...)
	for j, device := range devices {
		disk, ok := device.(*types.VirtualDisk)
		if !ok {
			continue
		}
		parent, ok := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
		if !ok || next[parent.FileName] == "" {
			continue
		}
		backing, now := *parent, *disk
		backing.FileName = next[parent.FileName]
		backing.Parent = parent
		now.Backing = &backing
		devices[j] = &now
	}
	simulator.Map.Update(entity, []types.PropertyChange{{Name: "config.hardware.device", Val: devices}})
}

// folder finds or makes the folders below another.
func (inv *inventory) folder(ctx context.Context, folder *object.Folder, names []string) (*object.Folder, error) {
	search := object.NewSearchIndex(inv.client)
	for _, name := range names {
		found, err := search.FindChild(ctx, folder, encodeName(name))
		if err != nil {
			return nil, err
		}
		if next, ok := found.(*object.Folder); ok {
			folder = next
			continue
		}
		// It encodes the name itself.
		if folder, err = folder.CreateFolder(ctx, name); err != nil {
			return nil, err
		}
	}
	return folder, nil
}

func (inv *inventory) devices(vm *VM) ([]types.BaseVirtualDeviceConfigSpec, error) {
	var list object.VirtualDeviceList
	controllers := map[string]types.BaseVirtualController{}
	for _, place := range places(vm.Disks) {
		at, err := parseFilePath(place.disk.Path)
		if err != nil {
			return nil, err
		}
		if err := inv.scratchFolder(at); err != nil {
			return nil, err
		}
		controller := controllers[place.controller()]
		if controller == nil {
			if controller, err = newController(list, place); err != nil {
				return nil, err
			}
			controllers[place.controller()] = controller
			list = append(list, controller.(types.BaseVirtualDevice))
		}
		disk := list.CreateDisk(controller, types.ManagedObjectReference{}, place.disk.Path)
		unit := int32(place.slot)
		disk.UnitNumber = &unit
		disk.CapacityInBytes = place.disk.Bytes
		disk.CapacityInKB = place.disk.Bytes / 1024
		list = append(list, disk)
	}
	for _, nic := range vm.NICs {
		backing := &types.VirtualEthernetCardNetworkBackingInfo{}
		backing.DeviceName = nic.Network
		device, err := list.CreateEthernetCard("vmxnet3", backing)
		if err != nil {
			return nil, err
		}
		card := device.(types.BaseVirtualEthernetCard).GetVirtualEthernetCard()
		card.AddressType = string(types.VirtualEthernetCardMacTypeManual)
		card.MacAddress = nic.MAC
		list = append(list, device)
	}
	at, err := parseFilePath(vm.VMX)
	if err != nil {
		return nil, err
	}
	if err := inv.scratchFolder(at); err != nil {
		return nil, err
	}
	return list.ConfigSpec(types.VirtualDeviceConfigSpecOperationAdd)
}

// scratchFolder makes the folder of a file: the simulator makes only one level by itself.
func (inv *inventory) scratchFolder(at filePath) error {
	for i := range inv.config.Datastores {
		if inv.config.Datastores[i].Name == at.datastore {
			dir := filepath.Join(inv.scratch, fmt.Sprint(i), filepath.Dir(filepath.FromSlash(at.name)))
			return os.MkdirAll(dir, 0o700)
		}
	}
	return nil
}

func newController(list object.VirtualDeviceList, place place) (types.BaseVirtualController, error) {
	var device types.BaseVirtualDevice
	var err error
	switch place.bus {
	case "ide":
		device, err = list.CreateIDEController()
	case "nvme":
		device, err = list.CreateNVMEController()
	case "sata":
		sata := &types.VirtualAHCIController{}
		sata.Key = list.NewKey()
		device = sata
	default:
		kind := map[string]string{"lsisas1068": "lsilogic-sas"}[place.disk.Controller]
		if kind == "" {
			kind = place.disk.Controller
		}
		device, err = list.CreateSCSIController(kind)
	}
	if err != nil {
		return nil, err
	}
	controller := device.(types.BaseVirtualController)
	controller.GetVirtualController().BusNumber = int32(place.number)
	return controller, nil
}
