#!/usr/bin/env perl

# Tests for the configurations in nginx-conf/: nginx takes them as they are but
# for ports and paths, and each does what it is there for.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $folder = "$FindBin::Bin/../nginx-conf";
my @samples = map { s{.*/}{}r } sort glob "$folder/*.conf";

# What each is there for.
my %purposes = (
	'demo.conf' => \&demo,
	'load-balancer.conf' => \&load_balancer,
	'lua.conf' => \&lua,
	'upstream_candc.conf' => \&upstream_candc,
);

# Tests of one that not every nginx can run, and what it needs.
my %needs = ('lua.conf' => [ 17, 'lua' ]);

# Processes that no harness knows.
my @by_hand;

my $t = Test::Nginx->new()
	->has(qw/
		module http proxy ssl rewrite upstream_zone upstream_keepalive
		fastcgi uwsgi scgi
	/);
plan(skip_all => 'no openssl') if system('openssl version >/dev/null 2>&1');
$t->plan(104);

certificates();

is_deeply(\@samples, [ sort keys %purposes ], 'each sample has a test');

for my $name (@samples) { SKIP: {
	my ($tests, $module) = @{ $needs{$name} // [] };
	skip "$name: nginx without $module", $tests
		if $module && !$t->has_module_built($module);

	my $sample = sample($name);
	my ($code, $out) = $t->test_config($sample);
	is($code, 0, "$name: nginx -t") or diag($out);
	unlike($out, qr/\[(?:warn|error|emerg)\]/, "$name: no warnings");

	$t->write_file_expand('nginx.conf', $sample)->run();
	# Sessions of TLS have their pages in the zone.
	$t->leak_keys('/upstreamstatus', 8080,
		pages => { primary_tls => 2, dr_tls => 2 });
	$purposes{$name}->($name);
	$t->stop();
	by_hand($name);
} }

# None of them is left, whatever happens.
END { kill KILL => grep { kill 0 => $_ } @by_hand }

# The lines at the top of a sample that start it, run as they are in a copy of
# the checkout, but for the ports and which nginx it is.
sub by_hand ($name) {
	my @lines = lines($name) or return;
	my $end = pop @lines;
	my $dir = $t->testdir() . "/checkout-$name";
	my $program = $t->binary()->path() . ($> == 0 ? q( -g 'user root;') : '');
	my $run = sub ($line) {
		return system("cd $dir && { $line; } >>$dir.out 2>&1 </dev/null");
	};

	mkdir $dir or die "$dir: $!\n";
	$run->("mkdir -p nginx-conf build/debian && cp -r $FindBin::Bin/../lualib .")
		and die "$dir: no checkout\n";
	system('cp', $ENV{TEST_NGINX_MODULE}, "$dir/build/debian/"
		. 'ngx_http_upstream_control_module.so') and die "cp: $?\n";
	for my $conf (@samples) {
		open my $fh, '<', "$folder/$conf" or die "$folder/$conf: $!\n";
		$t->write_file("checkout-$name/nginx-conf/$conf", $t->expand(
			join('', <$fh>) =~ s/%%/%/gr));
	}
	my $before = files($dir);

	s{^/usr/sbin/nginx }{$program } for @lines, $end;
	my @failed = grep { $run->($_) } @lines;
	is("@failed", '', "$name: the lines that start it")
		or diag($t->read_file("checkout-$name.out"));
	ok($t->wait_for(sub { http_get('/upstreamstatus')->status() == 200 }, 10,
		'it answers'), "$name: it runs");
	my $pid = pid_in($dir) || die "$name: no pid\n";
	push @by_hand, $pid;
	is($run->($end), 0, "$name: the line that ends it");
	$t->wait_for(sub { !kill 0 => $pid }, 10, 'it ends') or kill KILL => $pid;
	is(files($dir), $before, "$name: nothing is left but in build/");
}

# The commands at the top of a sample, but for those that try it.
sub lines ($name) {
	open my $fh, '<', "$folder/$name" or die "$folder/$name: $!\n";
	my @lines;
	while (my $line = <$fh>) {
		last if $line !~ /^#/;
		push @lines, $1 if $line =~ /^#   (?! )(.*\n)/;
		$lines[-1] .= $1 if $line =~ /^#       (.*\n)/;
	}
	return map { s/\\\n/ /gr =~ s/\n\z//r } grep { !/^curl / } @lines;
}

# What is in a folder, but for build/.
sub files ($dir) {
	return join ' ', sort split /\n/, qx{cd $dir && find . -path ./build -prune -o -print};
}

sub pid_in ($dir) {
	my ($file) = glob "$dir/build/*/logs/nginx.pid" or return 0;
	open my $fh, '<', $file or die "$file: $!\n";
	return <$fh> + 0;
}

# The text of a sample, with the harness's own in the place of what only a run
# by hand needs.
sub sample ($name) {
	open my $fh, '<', "$folder/$name" or die "$folder/$name: $!\n";
	my $text = do { local $/; <$fh> };

	$text =~ s/^(?:load_module|pid|error_log) [^;]*;\n//gm;
	$text =~ s/^ *(?:access_log logs|\w+_temp_path )[^;]*;\n//gm;
	$text =~ s{\$prefix/lualib}{$FindBin::Bin/../lualib}g;
	$text =~ s/^http \{\n/http {\n%%TEST_GLOBALS_HTTP%%\n/m or die "no http\n";
	return "%%TEST_GLOBALS%%\n$text";
}

# Who answers, and how often, as logical addresses.
sub who ($uri, $requests, %request) {
	my %who;
	for (1 .. $requests) {
		my ($server) = http_get($uri, %request)->body =~ /served by ([\d.:]+)/;
		$who{$t->logical($server // 'nobody')}++;
	}
	return \%who;
}

sub body ($uri) { return $t->logical(http_get($t->expand($uri))->body) }

# "STATUS BODY" of the reply to what `curl -d` sends.
sub change ($arguments) {
	my $r = http_post('/upstreamcontrol', $t->expand($arguments), headers => {
		'Content-Type' => 'application/x-www-form-urlencoded' });
	return $t->logical($r->status() . ' ' . $r->body());
}

# "STATUS BODY" of the reply to one of the lines that are printed or written.
sub line ($uri) {
	my $r = http_get($t->expand($uri));
	return $t->logical($r->told());
}

# What a browser gets, and what its buttons send.
sub page ($name, $upstream, $control = '/upstreamcontrol') {
	my $page = http_get('/upstreamstatus', headers => {
		Accept => 'text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8',
	});
	like($page->header('Content-Type'), qr{^text/html}, "$name: a page");
	like($page->body(), qr{data-control="$control"},
		"$name: it has buttons");

	for my $state (qw/down up/) {
		my $r = http_post($control, "upstream=$upstream&id=1&$state=",
			headers => {
				Accept => 'application/json',
				Origin => 'http://localhost',
				'Content-Type' => 'application/x-www-form-urlencoded',
				'Sec-Fetch-Site' => 'same-origin',
			});
		is($r->status(), 200, "$name: button $state, status");
		like($r->body(), qr/"state":"$state"/, "$name: button $state");
	}
}

# make demo: the lines that tools/demo.sh prints, and the upstream "api".
sub demo ($name) {
	my @three = map { "127.0.0.1:$_" } 8081, 8082, 8083;
	my $control = 'upstream=backend';

	is(http_get("/upstreamcontrol?$control")->status(), 405, "$name: POST only");
	is_deeply(who('/', 6), { map { $_ => 2 } @three }, "$name: three servers");

	my ($list, $reply) = readme();
	my $r = http_post("/upstreamcontrol?$control&replace=&dry_run=",
		$t->expand($list), headers => { 'Content-Type' => 'text/plain' });
	is($t->logical($r->body()), $reply, "$name: the README's list");

	like(change("$control&server=127.0.0.1:8081&down=&note=upgrade"),
		qr/^200 server 127.0.0.1:8081 .* down;$/m, "$name: down");
	is_deeply(who('/', 6), { map { $_ => 3 } @three[1, 2] },
		"$name: two servers");
	like(body('/upstreamstatus?format=text'),
		qr/127\.0\.0\.1:8081 +down .*: upgrade$/m, "$name: note");

	like(change("$control&server=127.0.0.1:8081&up="),
		qr/^200 server 127.0.0.1:8081 .* conns=0;$/m, "$name: up");
	is_deeply(who('/', 6), { map { $_ => 2 } @three },
		"$name: three servers again");

	my $add = change("$control&add=&server=127.0.0.1:8091&weight=3");
	my $with = who('/', 6);
	my $remove = change("$control&remove=&server=127.0.0.1:8091");
	like($add, qr/^200 .*^server 127.0.0.1:8091 .* weight=3 .*;$/ms,
		"$name: add");
	is_deeply($with, { (map { $_ => 1 } @three), '127.0.0.1:8091' => 3 },
		"$name: three of six");
	like($remove, qr/^200 server 127.0.0.1:8081 /, "$name: remove");
	unlike($remove, qr/8091/, "$name: it is gone");
	is_deeply(who('/', 6), { map { $_ => 2 } @three },
		"$name: three servers at the end");

	page($name, 'backend');

	like(change("$control&peer=2&weight=4"),
		qr/^server 127.0.0.1:8083 .* weight=4 /m, "$name: weight");
	is_deeply(who('/', 6), { $three[0] => 1, $three[1] => 1, $three[2] => 4 },
		"$name: four of six");

	# The backup takes over when nobody else is there.
	change("$control&servers=" . join(',', @three) . '&down=');
	is_deeply(who('/', 2), { '127.0.0.1:8084' => 2 }, "$name: backup");

	# The slow one is down, so that only the quick one and the failing one
	# are asked.
	change('upstream=api&server=127.0.0.1:8092&down=');
	is_deeply(who('/api/', 4), { '127.0.0.1:8091' => 4 },
		"$name: a failure is not seen");
	like(body('/upstreamstatus?format=text&upstream=api'),
		qr/127\.0\.0\.1:8093 +unavail .* max_fails reached$/m,
		"$name: a failed server");

	my $began = now();
	change('upstream=api&servers=127.0.0.1:8091,127.0.0.1:8093'
		. '&down=');
	change('upstream=api&server=127.0.0.1:8092&up=');
	is_deeply(who('/api/', 1), { '127.0.0.1:8092' => 1 }, "$name: slow server");
	cmp_ok(now() - $began, '>', 0.5, "$name: it is slow");
}

# The list that the README has for the servers of the demo, and what its reply
# is in a dry run: without a new revision and new ids.
sub readme {
	open my $fh, '<', "$FindBin::Bin/../README.md" or die "README.md: $!\n";
	my $text = do { local $/; <$fh> };
	my ($list, $reply) = $text =~ /
		^[ ]{4}\#[ ]servers\n ((?:[ ]{4}server[ ].*\n)+) \n ((?:[ ]{4}.*\n)+)
	/mx or die "README.md has no list\n";
	s/^ {4}//mg for $list, $reply;
	return $list, $reply =~ s/, revision \K1$/0, dry run/mr
		=~ s/^added \S+\K id=\d+$//mgr;
}

# The lines at the top of load-balancer.conf.
sub certificates {
	my $dir = $t->testdir() . '/certs';
	my $name = 'origin.example.com';
	mkdir $dir or die "$dir: $!\n";
	system("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=$name "
		. "-addext subjectAltName=DNS:$name -keyout $dir/origin.key "
		. "-out $dir/origin.crt >$dir/openssl.out 2>&1") == 0
		or die 'openssl: ', $t->read_file('certs/openssl.out');
	$t->write_file("certs/$_->[1]", $t->read_file("certs/$_->[0]")) for
		[qw/origin.key site.key/], [qw/origin.crt site.crt/],
		[qw/origin.crt origin-ca.crt/];
}

# lua-resty-upstream's example: its listeners and its API.
sub load_balancer ($name) {
	my @at = map { "127.0.0.1:$_" } 8081 .. 8084;
	my %http = (port => 8000);

	is_deeply(who('/', 4, %http), { map { $_ => 2 } @at[0, 1] },
		"$name: the first pool");
	my $pools = get_json('/pools');
	is_deeply([ sort keys %$pools ], [qw/dr primary/], "$name: two pools");
	is("@{$pools->{primary}}{qw/up priority failed_timeout max_fails/}",
		'1 5 60 3', "$name: of the example");
	is_deeply([ sort keys get_json('/tls/pools')->%* ],
		[qw/dr_tls primary_tls/], "$name: and two more");

	like(http(join("\r\n", 'POST / HTTP/1.1', 'Host: localhost',
		'Transfer-Encoding: chunked', 'Connection: close', '', '1', 'x', '0',
		'', ''), %http), qr{\AHTTP/1.1 200 .*served by}s, "$name: a chunked body");

	is(line('/down_host/primary/1'), '200 ', "$name: down");
	is_deeply(who('/', 4, %http), { $at[1] => 4 }, "$name: one host");
	line('/down_host/primary/2');
	is_deeply(who('/', 4, %http), { map { $_ => 2 } @at[2, 3] },
		"$name: the second pool");
	is(line("/up_host/primary/$_"), '200 ', "$name: up $_") for 1, 2;
	is_deeply(who('/', 4, %http), { map { $_ => 2 } @at[0, 1] },
		"$name: the first pool again");

	# 502: all hosts of both pools answer badly.
	is(http_get('/bad', %http)->status(), 502, "$name: bad answers");
	# 504: nobody is there, or nobody may be asked.
	for my $pool (qw/primary dr/) {
		for my $id (0, 1) {
			my $port = ($pool eq 'dr' ? 8097 : 8095) + $id;
			change("upstream=$pool&id=$id&up="
				. "&server=127.0.0.1:$port");
		}
	}
	is(http_get('/', %http)->status(), 504, "$name: no connection");
	line("/down_host/$_") for qw{primary/1 primary/2 dr/1 dr/2};
	is(http_get('/', %http)->status(), 504, "$name: all pools are down");

	is(origins(4), join(' ', (map { "127.0.0.1:$_" } 8091, 8092) x 2),
		"$name: TLS");
	line('/tls/down_host/primary_tls/1');
	line('/tls/down_host/primary_tls/2');
	is(origins(2), '127.0.0.1:8093 127.0.0.1:8094', "$name: TLS, second pool");
	like(https('/'), qr/ for origin\.example\.com\n\z/, "$name: SNI");

	page($name, 'primary');

	# Another name than that of the certificate.
	$t->stop();
	$t->write_file_expand('nginx.conf', sample($name)
		=~ s/proxy_ssl_name \K[^;]+/other.example.com/r)->run();
	like(https('/'), qr{\AHTTP/1.1 502 }, "$name: TLS is verified");
	ok($t->find_in_log(qr/certificate does not match "other\.example\.com"/),
		"$name: by name");
}

# The bytes of a reply over TLS.
sub https ($uri) {
	my $address = $t->expand('127.0.0.1:8443');
	my $file = $t->testdir() . '/request';
	$t->write_file('request', join "\r\n", "GET $uri HTTP/1.1",
		'Host: localhost', 'Connection: close', '', '');
	return qx{openssl s_client -quiet -connect $address <$file 2>/dev/null};
}

# Who answers over TLS.
sub origins ($requests) {
	return $t->logical(join ' ',
		map { https('/') =~ /served by ([\d.:]+) / } 1 .. $requests);
}

# EBLB's example: its curl lines, and its page.
sub upstream_candc ($name) {
	my $control = '/upstreamcontrol?peer=0&stream=luaupstfoo';
	my $two = { '127.0.0.1:8081' => 2, '127.0.0.1:8082' => 2 };

	is(http_get('/upstreamstatus')->status, 200, "$name: status");
	is_deeply(who('/', 4), $two, "$name: two servers of four");

	my $reply = http_get('/upstreamcontrol?down=true&peer=0&stream=luaupstfoo');
	is($reply->status, 200, "$name: down, status");
	is($reply->body, "down true nil\n", "$name: down");
	is_deeply(who('/', 4), { '127.0.0.1:8082' => 4 }, "$name: one server");

	is(body("$control&down=false"), "up true nil\n", "$name: up");
	is_deeply(who('/', 4), $two, "$name: two servers again");

	# Servers that wait until they are needed.
	is(body('/upstreamcontrol?down=false&peer=2&stream=luaupstfoo'),
		"up true nil\n", "$name: a third server");
	is_deeply(who('/', 3), { map { ("127.0.0.1:$_" => 1) } 8081 .. 8083 },
		"$name: three servers");

	page($name, 'luaupstfoo', '/change');

	# Its three lines, one after the other: the server is down before it gets
	# addresses that nobody here has.
	my $uri = '/upstreamcontrol?%s&peer=0&stream=luaupstfoo';
	my @addresses = qw/192.168.169.9:8081 192.168.169.2:85/;
	is(line(sprintf $uri, 'down=true'), "200 down true nil\n", "$name: line 1");
	for my $address ('192.168.169.9', '192.168.169.2:85') {
		is(line(sprintf $uri, "addr=$address"), "200 changed true nil\n",
			"$name: $address");
		my $there = shift @addresses;
		like(body('/upstreamcontrol?upstream=luaupstfoo'),
			qr/\Aserver \Q$there\E addr=\Q$there\E down;$/m,
			"$name: $there");
	}

	# The way back.
	line(sprintf $uri, 'addr=127.0.0.1:8081');
	line(sprintf $uri, 'down=false');
	is_deeply(who('/', 3), { map { ("127.0.0.1:$_" => 1) } 8081 .. 8083 },
		"$name: back");
}

# The lines at its top.
sub lua ($name) {
	my $status = sub ($revision, @servers) {
		return "200 backend, revision $revision\n"
			. join '', map { "    $_\n" } @servers;
	};
	my @two = map { "127.0.0.1:$_" } 8081, 8082;

	is(line('/backend/add?peer=127.0.0.1:8083'),
		"200 Added 127.0.0.1:8083 to backend upstream\n", "$name: add");
	is(line('/status'), $status->(2, (map { "$_ up " } @two),
		'127.0.0.1:8083 down '), "$name: status");
	is(line('/backend/add?peer=127.0.0.1:8083'),
		"200 Internal server error\n", "$name: add again");
	is(line('/backend/remove?peer=127.0.0.1:8083'),
		"200 Removed 127.0.0.1:8083 from backend upstream\n", "$name: remove");
	is(line('/nobody/remove?peer=127.0.0.1:8083'),
		"200 Upstream not found\n", "$name: nobody");

	is(line('/maintenance?down=127.0.0.1:8081&note=upgrade'),
		"200 1 changed, revision 4\n", "$name: down");
	is(line('/status'), $status->(4, '127.0.0.1:8081 down upgrade',
		'127.0.0.1:8082 up '), "$name: note");
	is_deeply(who('/', 4), { '127.0.0.1:8082' => 4 }, "$name: one server");
	is(line('/maintenance?up=127.0.0.1:8081'),
		"200 1 changed, revision 5\n", "$name: up");
	is_deeply(who('/', 4), { map { $_ => 2 } @two }, "$name: two servers");
	is(line('/maintenance?up=127.0.0.1:8099'),
		qq{404 server or peer is not found: "127.0.0.1:8099"}, "$name: no such server");
}
