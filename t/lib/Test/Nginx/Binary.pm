package Test::Nginx::Binary;

# The nginx binary under test: what it is and what it can do, from "nginx -V".
#
#   Test::Nginx::Binary->new($path)  dies when it cannot be run
#   ->path                           absolute path
#   ->version                        "1.28.0"
#   ->has_version('1.27.3')          version is that or later
#   ->lacks($name)                   undef, or the reason in words; dies on a
#                                    name that it does not know, so that a
#                                    typing error never skips a test
#   ->load_modules                   dynamic modules that the answers above
#                                    rely on, in the order to load them

use v5.36;

use Config;
use Cwd qw/abs_path/;
use File::Basename qw/dirname/;
use File::Spec;
use Socket ();

# Modules that a plain ./configure builds: configure's name, and the first
# version that has it where that is not ancient.
my %DEFAULT_ON = (
	(map { $_ => ["http_$_"] } qw/
		access auth_basic autoindex charset empty_gif fastcgi geo grpc gzip
		limit_conn limit_req map memcached mirror proxy referer rewrite scgi
		split_clients ssi userid uwsgi
		upstream_hash upstream_ip_hash upstream_keepalive
		upstream_least_conn upstream_random upstream_zone
	/),
	upstream_least_time => ['http_upstream_least_time', '1.31.0'],
	upstream_sticky     => ['http_upstream_sticky', '1.29.6'],
	(map { $_ => [$_] } qw/
		stream_access stream_geo stream_limit_conn stream_map stream_pass
		stream_return stream_set stream_split_clients stream_upstream_hash
		stream_upstream_least_conn stream_upstream_random
		stream_upstream_zone
	/),
);

# Modules that ./configure builds when asked.
my %DEFAULT_OFF = map { $_ => $_ } qw/
	http_addition_module http_auth_request_module http_dav_module
	http_gunzip_module http_realip_module http_slice_module
	http_ssl_module http_stub_status_module http_sub_module
	http_v2_module http_v3_module
	stream_realip_module stream_ssl_module stream_ssl_preread_module
/;

# Features without a module of their own.
my %BY_VERSION = (
	resolve => ['1.27.3', 'server ... resolve'],
	sid     => ['1.29.6', 'ids of peers for sticky'],
);

my %ALIAS = (
	sticky => 'upstream_sticky',
	(map { s/\Ahttp_(.*)_module\z/$1/r => $_ }
		grep { /\Ahttp_/ } keys %DEFAULT_OFF),
	(map { s/_module\z//r => $_ } keys %DEFAULT_OFF),
);

sub new ($class, $path) {
	my $abs = abs_path($path);
	die "nginx binary \"$path\" not found, set TEST_NGINX_BINARY\n"
		unless defined $abs && -x $abs;

	my $text = qx{'$abs' -V 2>&1};
	my ($version) = $text =~ m{^nginx version: [^/]+/(\d+(?:\.\d+)+)}m
		or die "\"$abs -V\" does not look like nginx:\n$text";
	my ($args) = $text =~ /^configure arguments:(.*)$/m;

	return bless {
		path => $abs, version => $version, args => $args // '', load => [],
	}, $class;
}

sub path ($self) { return $self->{path} }

sub version ($self) { return $self->{version} }

sub configure_arguments ($self) { return $self->{args} }

sub load_modules ($self) { return @{ $self->{load} } }

sub has_version ($self, $wanted) {
	my @have = split /\./, $self->{version};
	my @want = split /\./, $wanted;

	for my $i (0 .. $#want) {
		my $order = ($have[$i] // 0) <=> $want[$i];
		return $order > 0 if $order;
	}

	return 1;
}

sub lacks ($self, $name) {
	$name = $ALIAS{$name} // $name;

	if (my $row = $DEFAULT_ON{$name}) {
		my ($option, $since) = @$row;

		if ($name =~ /\Astream_/) {
			my $reason = $self->lacks('stream');
			return $reason if $reason;
		}

		return "needs nginx $since or later for $name"
			if $since && !$self->has_version($since);
		return $self->_configured("--without-${option}_module")
			? "nginx was built without ${option}_module" : undef;
	}

	if (my $option = $DEFAULT_OFF{$name}) {
		return undef if $self->_configured("--with-$option");
		return "nginx was built without $option"
			unless $self->_configured("--with-$option=dynamic");
		return $self->_dynamic("ngx_$option");
	}

	if (my $row = $BY_VERSION{$name}) {
		return $self->has_version($row->[0])
			? undef : "needs nginx $row->[0] or later for $row->[1]";
	}

	my $code = $self->can("_lacks_$name")
		or die "has(): unknown capability \"$name\"\n";

	return $self->$code();
}

sub _lacks_http ($self) {
	return $self->_configured('--without-http')
		? 'nginx was built without http' : undef;
}

sub _lacks_stream ($self) {
	return undef if $self->_configured('--with-stream');
	return 'nginx was built without stream'
		unless $self->_configured('--with-stream=dynamic');
	return $self->_dynamic('ngx_stream_module');
}

sub _lacks_lua ($self) {
	return $self->_dynamic('ndk_http_module')
		// $self->_dynamic('ngx_http_lua_module');
}

sub _lacks_debug ($self) {
	return $self->_configured('--with-debug')
		? undef : 'nginx was built without --with-debug';
}

sub _lacks_threads ($self) {
	return $self->_configured('--with-threads')
		? undef : 'nginx was built without --with-threads';
}

# The module that the project builds, not one of nginx.
sub _lacks_module ($self) {
	return ($ENV{TEST_NGINX_MODULE} // '') ne ''
		? undef : 'TEST_NGINX_MODULE is not set';
}

sub _lacks_unsafe ($self) {
	return $ENV{TEST_NGINX_UNSAFE} ? undef : 'TEST_NGINX_UNSAFE is not set';
}

sub _lacks_root ($self) { return $> == 0 ? undef : 'needs root' }

sub _lacks_unix ($self) {
	return $Config{d_sockpair} ? undef : 'no unix sockets here';
}

sub _lacks_ipv6 ($self) {
	my $address = Socket::pack_sockaddr_in6(0, Socket::IN6ADDR_LOOPBACK());
	my $s;

	return undef
		if socket($s, Socket::AF_INET6(), Socket::SOCK_STREAM(), 0)
		&& bind($s, $address);

	return 'no IPv6 loopback here';
}

sub _lacks_wrk ($self) {
	return (grep { -x "$_/wrk" } File::Spec->path())
		? undef : 'wrk is not installed';
}

sub _configured ($self, $option) {
	return $self->{args} =~ /(?:\A|\s)\Q$option\E(?:\s|\z)/;
}

# A dynamic module counts when its file is found; it is then loaded.
sub _dynamic ($self, $name) {
	return undef if grep { m{/\Q$name\E\.so\z} } $self->load_modules();

	my ($configured) = $self->{args} =~ /--modules-path='?([^\s']+)/;
	my ($prefix) = $self->{args} =~ /--prefix='?([^\s']+)/;

	for my $dir (
		$configured, ($prefix // '/usr/local/nginx') . '/modules',
		dirname($self->{path}),
		dirname($ENV{TEST_NGINX_MODULE} || '/nonexistent/x'),
	) {
		next unless defined $dir && -f "$dir/$name.so";
		push @{ $self->{load} }, "$dir/$name.so";
		return undef;
	}

	return "$name.so not found";
}

1;
