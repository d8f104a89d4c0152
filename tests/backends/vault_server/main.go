// Vault with its minimal set of plugins (key/value, transit, AppRole and a few more), and with its own plugin for
// logging in with Kubernetes, which that set lacks. For tests only: it is built where it is needed, never handed on.
package main

import (
	"os"
	"reflect"
	"unsafe"

	kubernetes "github.com/hashicorp/vault-plugin-auth-kubernetes"
	"github.com/hashicorp/vault/command"
	"github.com/hashicorp/vault/helper/builtinplugins"
	"github.com/hashicorp/vault/sdk/logical"
)

func main() {
	// The registry cannot be extended from outside, and the full set takes the SDKs of every cloud to build.
	field := reflect.ValueOf(builtinplugins.Registry).Elem().FieldByName("credentialBackends")
	backends := reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem()
	backend := reflect.New(backends.Type().Elem()).Elem()
	backend.FieldByName("Factory").Set(reflect.ValueOf(logical.Factory(kubernetes.Factory)))
	backends.SetMapIndex(reflect.ValueOf("kubernetes"), backend)
	os.Exit(command.Run(os.Args[1:]))
}
