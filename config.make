# Adds the module to the targets "modules" and "install" of nginx's makefile. cargo decides what is to be compiled anew,
# hence the rule is phony; what it compiles goes below nginx's objs, not into this folder. `install` puts a new file in the
# place of one that a running nginx may have mapped.

ngx_rust_module=ngx_http_upstream_control_module
ngx_rust_so=$NGX_OBJS/$ngx_rust_module.so
ngx_rust_target=$NGX_OBJS/addon/$ngx_rust_module

# nginx makes this path absolute only later, in auto/install
case "$NGX_MODULES_PATH" in
    /*) ngx_rust_dir=$NGX_MODULES_PATH ;;
    *)  ngx_rust_dir=$NGX_PREFIX/$NGX_MODULES_PATH ;;
esac

cat << END >>"$NGX_MAKEFILE"

.PHONY:	$ngx_rust_so install_$ngx_rust_module

modules:	$ngx_rust_so

$ngx_rust_so:
	NGINX_SOURCE_DIR="\$\$(pwd)" NGINX_BUILD_DIR="\$\$(cd $NGX_OBJS && pwd)" \\
		${NGX_CARGO:-cargo} build --release --locked \\
		--manifest-path "$ngx_addon_dir/Cargo.toml" --target-dir $ngx_rust_target
	install $ngx_rust_target/release/lib$ngx_rust_module.so $ngx_rust_so

install:	install_$ngx_rust_module

install_$ngx_rust_module:	$ngx_rust_so
	mkdir -p '\$(DESTDIR)$ngx_rust_dir'
	install $ngx_rust_so '\$(DESTDIR)$ngx_rust_dir/$ngx_rust_module.so'

END
