#!/usr/bin/env perl

# Tests for the Lua APIs with what they cannot be meant for: each call says
# what is wrong, and changes nothing.  And with a module that is not there, or
# is of another version.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;
use Test::Nginx::Lua;

my $t = Test::Nginx->new()->has(qw/module http proxy upstream_zone lua/);

my $conf = <<'CONF';
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%
    %%LUA_PATH%%

    upstream backend {
        zone backend 64k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082 backup;
    }

    server {
        listen 127.0.0.1:8080;
        location /lua/status { %%STATUS%% }
        %%LOCATION%%
    }
}
CONF

my %holes = (
	LUA_PATH => Test::Nginx::Lua::path(), STATUS => 'upstream_status;',
	LOCATION => Test::Nginx::Lua::location('= /lua'),
);

$t->write_file_expand('nginx.conf', $conf, %holes)->run();
$t->leak_keys('/lua/status');

my $before = lua('return uc.status("backend")');
my $peer = '"127.0.0.1:8081"';
my $none = 'false, nil, ';

counts();
types();
parameters();
names();
own();
interface();
is(lua('return uc.status("backend")'), $before, 'nothing has changed');

elsewhere();
$t->done_testing();

sub refused ($call, $words) {
	is(lua("return du.$call"), qq{$none"$words"}, $call);
}

sub counts {
	refused("get_upstreams($_)", 'no argument expected')
		for 'nil', '"backend"', '1, 2';
	refused("current_upstream($_)", 'no argument expected') for 'nil', '1';

	for my $fn (qw/get_servers get_peers get_primary_peers get_backup_peers/) {
		refused("$fn($_)", 'exactly one argument expected')
			for '', '"backend", nil', '"backend", "x"';
	}

	for my $fn (qw/set_peer_down set_peer_up add_peer remove_peer
		add_primary_peer add_backup_peer/)
	{
		refused("$fn($_)", 'exactly 2 arguments expected')
			for '', '"backend"', qq{"backend", $peer, nil};
	}

	refused("update_peer($_)", 'exactly 3 arguments expected')
		for '', '"backend"', qq{"backend", $peer},
		qq{"backend", $peer, {}, nil};
}

sub types {
	my %wrong = (nil => 'nil', true => 'boolean', '{}' => 'table',
		print => 'function', 'io.stdout' => 'userdata',
		'require("ffi").new("int")' => 'cdata');

	for my $value (sort keys %wrong) {
		my $got = "(string expected, got $wrong{$value})";

		refused("$_($value)", "bad argument #1 to '$_' $got")
			for qw/get_servers get_peers get_primary_peers get_backup_peers/;

		for my $fn (qw/set_peer_down set_peer_up add_peer remove_peer
			add_primary_peer add_backup_peer/)
		{
			refused("$fn($value, $peer)", "bad argument #1 to '$fn' $got");
			refused("$fn('backend', $value)", "bad argument #2 to '$fn' $got");
		}

		refused("update_peer($value, $peer, {})",
			"bad argument #1 to 'update_peer' $got");
		refused("update_peer('backend', $value, {})",
			"bad argument #2 to 'update_peer' $got");
		refused("update_peer('backend', $peer, $value)",
			"bad argument #3 to 'update_peer' (table expected, got $wrong{$value})")
			if $value ne '{}';
	}

	# As in Lua's own functions a number is as good as its digits.
	refused('get_servers(5)', 'Upstream not found');
	refused('set_peer_down("backend", 8081)', 'Internal server error');
}

sub parameters {
	my %out_of = (weight => '1 and 65535', max_fails => '0 and 1000000',
		max_conns => '0 and 1000000', fail_timeout => '0 and 31536000');
	my $update = sub ($params, $words) {
		refused("update_peer('backend', $peer, { $params })", $words);
	};

	for my $name (sort keys %out_of) {
		my $no_number = $name eq 'fail_timeout'
			? qr/fail_timeout: (?:not a number(?:: "-?inf")?|invalid time "1\.5")/
			: qr/$name: not a number(?:: "(?:-?inf|1\.5)")?/;

		for my $value ('"x"', '""', '{}', 'true', '1.5', '0/0', '1/0', '-1/0',
			'"10s"')
		{
			like(lua("return du.update_peer('backend', $peer, "
				. "{ $name = $value })"), qr/\Afalse, nil, "$no_number"\z/,
				"$name = $value");
		}

		$update->("$name = $_", "invalid $name \"$_\": must be between $out_of{$name}")
			for '-1', '31536001';
		$update->("$name = 2^53", "invalid $name \"9007199254740992\": "
			. "must be between $out_of{$name}");
		like(lua("return du.update_peer('backend', $peer, { $name = 1e300 })"),
			qr/\Afalse, nil, "invalid $name "10+\.*.*": must be between/,
			"$name = 1e300");
	}

	$update->('weight = 0',
		'invalid weight "0": use drain or down to stop new requests');
	$update->("down = $_", 'down: must be 0 or 1')
		for 2, -1, 0.5, '"x"', '{}', '"true"';

	# One that is wrong is enough for nothing to be done.
	$update->('weight = 5, down = 1, max_fails = -1',
		'invalid max_fails "-1": must be between 0 and 1000000');
}

sub names {
	my $long = '("x"):rep(10240)';
	my @names = ('""', '"\0"', '"backend\0"', '"backend\0x"', '"\0backend"',
		'"backends"', '"backend "', '"\255\254"', $long,
		'"backend" .. ("\0"):rep(10240)');

	for my $name (@names) {
		refused("get_servers($name)", 'Upstream not found');
		refused("get_peers($name)", 'upstream not found');
		refused("set_peer_down($name, $peer)", 'Upstream not found');
		refused("add_backup_peer($name, $peer)", 'upstream not found');
	}

	my $valid = '127.0.0.1:8081';
	for my $server ('""', qq{"$valid\\0"}, qq{"$valid\\0x"}, qq{"\\0$valid"},
		qq{"$valid,$valid"}, qq{"$valid;"}, qq{" $valid"}, '"\255"', $long,
		qq{"$valid" .. ("\\0"):rep(10240)}, '"unix:/" .. ' . $long,
		'"0"', '"*"')
	{
		refused("$_('backend', $server)", 'Internal server error')
			for qw/set_peer_down set_peer_up remove_peer add_peer/;
		refused("update_peer('backend', $server, { weight = 2 })",
			'Internal server error');
	}

	refused('add_primary_peer("backend", "127.0.0.1:99999")',
		'invalid address "127.0.0.1:99999": port must be between 1 and 65535');
	refused('add_primary_peer("backend", "127.0.0.1:8099\0")',
		'invalid address "127.0.0.1:8099\x00": white space or '
		. 'control character');
}

sub own {
	my @rows = (
		[ 'status()', q{bad argument #1 to 'status' (string expected, got nil)} ],
		[ 'status(5)', q{bad argument #1 to 'status' (string expected, got number)} ],
		[ 'revision({})', q{bad argument #1 to 'revision' (string expected, got table)} ],
		[ 'set("backend", 0)', q{bad argument #3 to 'set' (table expected, got nil)} ],
		[ 'set(nil, 0, {})', q{bad argument #1 to 'set' (string expected, got nil)} ],
		[ 'set("backend", 0, { wieght = 2 })', 'unknown key "wieght"' ],
		[ 'set("backend", 0, { [1] = 2 })', 'unknown key "1"' ],
		[ 'set("backend", 0, { state = "off" })',
			'state: must be "up", "down" or "drain"' ],
		[ 'set("backend", 0, { backup = true })', 'unknown key "backup"' ],
		[ 'down("backend", 0, { note = 5 })', 'note: not a string' ],
		[ 'down("backend", 0, { node = "x" })', 'unknown key "node"' ],
		[ 'down("backend", 0, "note")',
			q{bad argument #3 to 'down' (table expected, got string)} ],
		[ 'down("backend", 0, { note = "\255" })', 'note: not UTF-8' ],
		[ 'down("backend")', 'no server is named' ],
		(map { [ "down('backend', $_)", q{servers of 'down' are not an array} ] }
			'{ 0, nil, 1 }', '{ first = 0 }', '{ [0] = 0 }'),
		[ 'down("backend", {})', 'no server is named' ],
		[ 'down("backend", true)',
			q{server 1 of 'down' is neither a text nor an id} ],
		[ 'down("backend", { 0, {} })',
			q{server 2 of 'down' is neither a text nor an id} ],
		(map { [ "down('backend', { 0, $_ })",
			q{server 2 of 'down' is neither a text nor an id} ] }
			-1, 1.5, '0/0', '1/0', '2^53') ,
		[ 'add("backend")', q{bad argument #2 to 'add' (string expected, got nil)} ],
		[ 'add("backend", 5)',
			q{bad argument #2 to 'add' (string expected, got number)} ],
		[ 'add("backend", "x y")', 'invalid address "x y": white space or '
			. 'control character' ],
		[ 'add("backend", "127.0.0.1:8099", { colour = 1 })',
			'unknown key "colour"' ],
		[ 'readdress("backend", 0, nil)',
			q{bad argument #3 to 'readdress' (string expected, got nil)} ],
		[ 'readdress("backend", 0, "127.0.0.1:8099", 5)',
			q{bad argument #4 to 'readdress' (table expected, got number)} ],
		[ 'remove("backend", 0, 5)',
			q{bad argument #3 to 'remove' (table expected, got number)} ],
	);

	is(lua("return uc.$_->[0]"), qq{nil, "$_->[1]", "BadArgument"}, $_->[0])
		for @rows;

	is(lua('return uc.down("backend", 0, { note = ("x"):rep(129) })'),
		'nil, "note: 129 bytes are too long, at most 128 are kept", "BadValue"',
		'a long note');
	is(lua('return uc.remove("backend", { 0, 1 })'),
		'nil, "several servers match, choose one by id: 0, 1", "Ambiguous"',
		'one at a time');
	is(lua('local all = {} for i = 1, 10000 do all[i] = i + 1 end'
		. ' return uc.down("backend", all)'),
		'nil, "server or peer is not found: "2"", "ServerNotFound"',
		'ten thousand ids');
}

# The C interface itself, called as these files do not.
sub interface {
	my $begin = <<'LUA';
local ffi = require "ffi"
local C = ffi.C
local memory = ffi.new("char[4096]")
local reply = ffi.new("ngx_http_upstream_control_ffi_reply_t", { data = memory })
local ask = ffi.new("ngx_http_upstream_control_ffi_ask_t")
local texts = ffi.new("ngx_http_upstream_control_ffi_texts_t")
local name, server = "backend", "127.0.0.1:8081"
local lengths = ffi.new("uint32_t[1]", #server)
texts.upstream, texts.upstream_len = name, #name
texts.servers, texts.lengths, texts.count = server, lengths, 1
local function says(code)
    return code, ffi.string(memory, reply.len)
end
local function peers(size, name)
    reply.size = size
    return C.ngx_http_upstream_control_ffi_peers(reply, name, #name)
end
local function change()
    reply.size = 4096
    return says(C.ngx_http_upstream_control_ffi_change(reply, ask, texts, nil))
end
LUA

	my @rows = (
		[ 'return C.ngx_http_upstream_control_ffi_peers(nil, name, #name),'
			. ' C.ngx_http_upstream_control_ffi_upstreams(nil),'
			. ' C.ngx_http_upstream_control_ffi_change(nil, nil, nil, nil),'
			. ' C.ngx_http_upstream_control_ffi_current_upstream(nil, nil)',
			'-1, -1, -1, -1', 'no reply' ],
		[ 'return says(C.ngx_http_upstream_control_ffi_peers('
			. '(function() reply.size = 4096 return reply end)(), nil, 7))',
			'-1, "UpstreamNotFound upstream is not found"', 'no name' ],
		[ 'reply.size = 4096 return says('
			. 'C.ngx_http_upstream_control_ffi_change(reply, nil, texts, nil))',
			'-1, "BadArgument a pointer is null"', 'no numbers' ],
		[ 'reply.size = 4096 return says('
			. 'C.ngx_http_upstream_control_ffi_change(reply, ask, nil, nil))',
			'-1, "BadArgument a pointer is null"', 'no words' ],
		[ 'texts.lengths = nil return change()',
			'-1, "BadArgument a pointer is null"', 'no lengths' ],
		[ 'texts.servers = nil return change()',
			'-1, "BadArgument a pointer is null"', 'no servers' ],
		[ 'texts.count = 0 return change()',
			'-1, "BadArgument no server is named"', 'none of them' ],
		[ 'ask.action = 4 return change()',
			'-1, "BadArgument unknown action"', 'action 4' ],
		[ 'ask.state = 4 return change()',
			'-1, "BadArgument unknown state"', 'state 4' ],
		[ 'local server = "0x" texts.servers = server'
			. ' lengths[0] = 2147483648 + 2 return change()',
			'-1, "ServerNotFound server or peer is not found: "0x""', 'no id' ],
		[ 'return says(peers(10, "x"))', '-1, "UpstreamNo"', 'cut' ],
		[ 'return says(peers(0, "x"))', '-1, ""', 'no room at all' ],
		[ 'reply.data = nil return says(peers(0, "x"))', '-1, ""',
			'no memory at all' ],
		[ 'reply.data = nil return peers(0, "backend") == 1 and reply.len > 300',
			'true', 'no memory for an answer' ],
		[ 'ffi.fill(memory, 4096, 120)'
			. ' local code = peers(100, "backend")'
			. ' local wanted = reply.len'
			. ' return code, wanted > 300, ffi.string(memory + 100, 3996)'
			. '   == ("x"):rep(3996), peers(wanted - 1, "backend"),'
			. '   ffi.string(memory + wanted - 1, 1), peers(wanted, "backend")',
			'1, true, true, 1, "x", 0', 'as much memory as is needed' ],
		[ 'reply.size = 20 return'
			. ' C.ngx_http_upstream_control_ffi_upstreams(reply), reply.count',
			'1, 1', 'the same for the list of upstreams' ],
	);

	is(lua("$begin\n$_->[0]"), $_->[1], "interface: $_->[2]") for @rows;
}

# Without the module, or with one of another version.
sub elsewhere {
	$t->stop();

	my $require = 'local ok, err = pcall(require, "ngx.%s") return ok, err';
	my $missing = 'false, "ngx_http_upstream_control_module.so is not loaded, '
		. 'or is older than these Lua files: nginx.conf must begin with '
		. '"load_module modules/ngx_http_upstream_control_module.so;""';

	my $file = "$FindBin::Bin/../lualib/ngx/upstream_control/ffi.lua";
	open my $fh, '<', $file or die "$file: $!\n";
	my $other = do { local $/; <$fh> } =~ s/^local ABI = \K\d+/99/mr;
	mkdir $t->testdir() . "/$_" for 'lua', 'lua/ngx', 'lua/ngx/upstream_control';
	$t->write_file('lua/ngx/upstream_control/ffi.lua', $other);

	my $location = Test::Nginx::Lua::location('= /lua')
		=~ s/= require "ngx\.\w+"/= nil/gr;
	my $path = Test::Nginx::Lua::path();

	$t->write_file_expand('nginx.conf', $conf, %holes, LOCATION => $location,
		LUA_PATH => $path =~ s/"/"%%TESTDIR%%\/lua\/?.lua;/r)->run();
	is(lua(sprintf $require, $_),
		'false, "ngx_http_upstream_control_module.so has version 2 of the '
		. 'interface for Lua, these Lua files need version 99: install both '
		. 'from one release"', "$_: another version")
		for qw/dynamic_upstream upstream_control/;
	$t->stop();

	delete local $ENV{TEST_NGINX_MODULE};
	delete local $t->{leaks};
	$t->write_file_expand('nginx.conf', $conf, %holes, LOCATION => $location,
		STATUS => '')->run();
	is(lua(sprintf $require, $_), $missing, "$_: no module")
		for qw/dynamic_upstream upstream_control/;
	is(lua('return require("ngx.dynamic_upstream.stream").get_upstreams()'),
		'false, nil, "stream: not yet supported"',
		'stream needs no module to say so');
	$t->stop();
}
