package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"path"
	"strings"
)

// chain is the files of a disk, from the base to the one the VM uses: one more for each snapshot.
func (vm *VM) chain(disk *Disk) []filePath {
	base, err := parseFilePath(disk.Path)
	if err != nil {
		return nil // the configuration has been checked
	}
	list := []filePath{base}
	if disk.Independent {
		return list
	}
	stem := strings.TrimSuffix(base.name, ".vmdk")
	for i := range vm.Snapshots {
		list = append(list, filePath{datastore: base.datastore, name: fmt.Sprintf("%s-%06d.vmdk", stem, i+1)})
	}
	return list
}

// writeDelta writes the descriptor and the extent of the ith file of a chain, the base being file 0.
func (c *Config) writeDelta(vm *VM, disk *Disk, i int) error {
	chain := vm.chain(disk)
	at, parent := chain[i], chain[i-1]
	extent := at
	extent.name = strings.TrimSuffix(at.name, ".vmdk") + "-delta.vmdk"
	text := fmt.Sprintf(`# Disk DescriptorFile
version=1
encoding="UTF-8"
CID=fffffffe
parentCID=fffffffe
createType="vmfsSparse"
parentFileNameHint="%s"

# Extent description
RW %d VMFSSPARSE "%s"

# The Disk Data Base
#DDB

ddb.longContentID = "fffffffefffffffefffffffefffffffe"
`, path.Base(parent.name), disk.Bytes/512, path.Base(extent.name))
	if err := c.writeNew(at, text); err != nil {
		return err
	}
	return c.writeNew(extent, string(emptyDelta(disk.Bytes)))
}

// The largest disk whose delta is of the old form, VMFSSPARSE; larger ones get another.
const maximumDelta = 2 << 40

// emptyDelta is an extent of the form VMFSSPARSE ("COWD") in which nothing has been written: everything is the parent's.
func emptyDelta(size int64) []byte {
	const grainsPerTable, directorySector = 4096, 4
	sectors := (size + 511) / 512
	entries := (sectors + grainsPerTable - 1) / grainsPerTable
	end := directorySector + (entries*4+511)/512
	var out bytes.Buffer
	out.WriteString("COWD")
	for _, field := range []int64{
		1,               // version
		3,               // flags
		sectors,         // of the disk
		1,               // sectors to a grain
		directorySector, // where the grain directory is,
		entries,         // and its length
		end,             // the first free sector
		sectors / (255 * 63), 255, 63,
	} {
		_ = binary.Write(&out, binary.LittleEndian, uint32(field))
	}
	return append(out.Bytes(), make([]byte, end*512-int64(out.Len()))...)
}
