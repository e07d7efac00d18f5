#!/usr/bin/env perl

# Tests for what a reload keeps: ids, revisions, and nothing else that was
# changed at run time; and for one that fails, which changes nothing.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP ();
use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()
	->has(qw/module http proxy upstream_zone upstream_least_conn unix/)
	->plan(86);

my $CONF = <<'CONF';
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%
    %%HTTP%%

    upstream u {
        zone %%ZONE%%;
        %%METHOD%%
        %%SERVERS%%
    }

    upstream other {
        zone other 64k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
    }

    %%MORE%%

    server {
        listen 127.0.0.1:8080;

        %%CONTROL%%

        location /other {
            proxy_pass http://other;
        }

        location /u {
            proxy_pass http://u;
        }
    }
}
CONF

my $MORE = 'upstream more { zone more 64k; server 127.0.0.1:8081; }';
my @THREE = map { "127.0.0.1:$_" } 8081 .. 8083;

my @backends = map { $t->backend("127.0.0.1:$_") } 8081 .. 8083;

configure(@THREE);
$t->run();
$t->leak_keys('/status', 8080);

unchanged();
dropped();
failed();
parameters();
order();
left_and_back();
duplicates();
groups();
upstreams();
settings();
many_lost();
memory();
under_way();
old_worker();
workers();

# The servers of "u", and whatever else is not as usual.
sub configure (@servers) {
	my %other = ref $servers[-1] ? %{ pop @servers } : ();

	$t->write_file_expand('nginx.conf', $CONF, HTTP => '', METHOD => '',
		ZONE => 'u 64k', MORE => $MORE,
		SERVERS => join("\n", map { "server $_;" } @servers), %other);
}

# Returns the notices of this module.
sub reload (@configuration) {
	my $mark = $t->log_mark();
	configure(@configuration) if @configuration;
	$t->reload(old_gone => 1);
	$t->leak_baseline();

	return map { s/.*?(?=upstream ")//r } $t->logical(join "\n",
		$t->grep_log(qr/\[(?:notice|warn)\].*upstream "/, $mark)) =~ /.+/g;
}

sub upstream ($name = 'u') {
	return get_json("/status?upstream=$name")->{upstreams}{$name};
}

# "id:last part of the address", with the word for its state unless it is up.
sub servers ($name = 'u') {
	return join ' ', map {
		"$_->{id}:" . $t->logical($_->{name}) =~ s/.*://r
			. ($_->{state} eq 'up' ? '' : " $_->{state}")
	} @{ upstream($name)->{peers} };
}

sub revision ($name = 'u') { return upstream($name)->{revision} }

sub act ($args, $name = 'u') {
	return control("/control?upstream=$name&$args")->status();
}

sub unchanged {
	is_deeply([ reload() ], [], 'nothing to say');
	is(servers(), '0:8081 1:8082 2:8083', 'ids');
	is(revision(), 0, 'revision');
}

# What was changed is gone, which is said once, and is a revision.
sub dropped {
	act('server=127.0.0.1:8081&down=&note=gone');
	act('server=127.0.0.1:8082&weight=5&max_conns=3');
	act('server=127.0.0.1:8082&weight=1&max_conns=0');
	act('server=127.0.0.1:8083&drain=');
	act('server=127.0.0.1:8081&down=', 'other');
	is(servers(), '0:8081 down 1:8082 2:8083 draining', 'changed');
	is(revision(), 4, 'four times');

	is_deeply([ reload() ], [
		map { qq(upstream "$_->[0]" server "127.0.0.1:$_->[1]": the reload dropped run-time changes: state $_->[2] -> up) }
			[ u => 8081, 'down' ], [ u => 8083, 'draining' ],
			[ other => 8081, 'down' ],
	], 'a line for each server');
	is(servers(), '0:8081 1:8082 2:8083', 'as the file says');
	is(revision(), 5, 'one revision more');
	is(upstream()->{peers}[0]{reason}, undef, 'no reason left');
	is(revision('other'), 2, 'the other one for itself');
	is(revision('more'), 0, 'none where nothing was dropped');

	is_deeply([ reload() ], [], 'said once');
	is(revision(), 5, 'counted once');

	act('server=127.0.0.1:8081&down=');
	is(revision(), 6, 'and on it goes');
	act('server=127.0.0.1:8081&up=');
	is_deeply([ reload() ], [], 'what was taken back is not dropped');
	is(revision(), 7, 'nor counted');
}

sub failed {
	act('server=127.0.0.1:8082&down=&note=stays');
	act('server=127.0.0.1:8081&weight=9');
	my ($servers, $revision) = (servers(), revision());
	my @reason = upstream()->{peers}[1]{reason};

	for my $wrong ('upstream_control_zone none;', 'nope on;',
		'upstream x { zone u 64k; zone other 128k; }',
		'server { listen 127.0.0.1:8080; location / { upstream_control x; } }',
	) {
		$t->allow_log(qr/\[emerg\]/);
		configure(@THREE, { HTTP => $wrong });
		ok(!$t->reload(), "refused: $wrong");
		is(servers() . ' ' . revision(), "$servers $revision",
			'nothing is changed');
	}

	is_deeply([ upstream()->{peers}[1]{reason} ], \@reason, 'reason stays');
	is(upstream()->{peers}[0]{weight}, 9, 'weight stays');
	is(act('server=127.0.0.1:8082&up='), 200, 'control goes on');
	is(revision(), $revision + 1, 'and counts');
	is_deeply([ reload(@THREE) ], [ 'upstream "u" server "127.0.0.1:8081": '
		. 'the reload dropped run-time changes: weight 9 -> 1' ],
		'a good one drops the weight');
}

# The file's parameters hold, and the server is the same one.
sub parameters {
	reload('127.0.0.1:8081 weight=4 max_conns=2', '127.0.0.1:8082 down',
		'127.0.0.1:8083 max_fails=7');
	is(servers(), '0:8081 1:8082 down 2:8083', 'other parameters, same ids');
	is_deeply([ map { @$_{qw/weight max_conns max_fails/} }
		@{ upstream()->{peers} } ], [ 4, 2, 1, 1, 0, 1, 1, 0, 7 ],
		'as the file says');
	is_deeply(upstream()->{peers}[1]{reason}, { by => 'configuration' },
		'down by the file');

	act('server=127.0.0.1:8082&up=');
	is(servers(), '0:8081 1:8082 2:8083', 'up against the file');
	is(scalar reload(), 1, 'that is a run-time change');
	is(servers(), '0:8081 1:8082 down 2:8083', 'down as the file says');

	# A change that the file now says, too, was not dropped.
	act('server=127.0.0.1:8082&up=');
	my $revision = revision();
	is_deeply([ reload(@THREE) ], [], 'the file agrees now');
	is(revision(), $revision, 'no revision');
}

sub order {
	reload(reverse @THREE);
	is(servers(), '2:8083 1:8082 0:8081', 'ids follow their servers');
	act('id=0&down=');
	is(servers(), '2:8083 1:8082 0:8081 down', 'and mean them');
	reload(@THREE);
	is(servers(), '0:8081 1:8082 2:8083', 'back in order');
}

sub left_and_back {
	act('server=127.0.0.1:8082&down=');
	reload(@THREE[0, 2]);
	is(servers(), '0:8081 2:8083', 'one left');
	is(act('id=1&up='), 400, 'its id is gone');
	reload(@THREE);
	is(servers(), '0:8081 3:8082 2:8083', 'it is another one when it returns');
	reload(@THREE, '127.0.0.1:8084');
	is(servers(), '0:8081 3:8082 2:8083 4:8084', 'a new one');
	reload(@THREE);
}

# Of servers with the same text, the first takes the first id, and so on.
sub duplicates {
	reload(@THREE[0, 0, 0]);
	is(servers(), '0:8081 5:8081 6:8081', 'two more of the same');
	act('id=5&down=');
	is(servers(), '0:8081 5:8081 down 6:8081', 'one of them');
	reload(@THREE[0, 0]);
	is(servers(), '0:8081 5:8081', 'the last one left');
	reload(@THREE[0, 0, 0]);
	is(servers(), '0:8081 5:8081 7:8081', 'and another one came');
	reload(@THREE);
}

sub groups {
	my $before = servers();
	reload($THREE[0], "$THREE[1] backup", "$THREE[2] backup");
	my ($first, @backups) = split ' ', servers();
	is($first, '0:8081', 'a primary stays');
	ok(!(grep { $before =~ /\b$_\b/ } @backups),
		'one that becomes a backup is another one');
	ok(upstream()->{peers}[1]{backup}, 'which is a backup');

	act('server=127.0.0.1:8082&down=');
	reload(@THREE);
	is(scalar(grep { $_->{backup} } @{ upstream()->{peers} }), 0, 'and back');
	is(servers() =~ s/\d+://gr, '8081 8082 8083', 'all are up');
}

# A name that leaves the file is forgotten; its numbers are not used again.
sub upstreams {
	act('peer=0&down=', 'more');
	is_deeply([ reload(@THREE, { MORE => '' }) ], [
		'upstream "more" left the configuration, its run-time state is forgotten',
	], 'one line for an upstream that left');
	is(control('/control?upstream=more')->status(), 404, 'it is not there');
	is_deeply([ reload() ], [], 'said once');

	reload(@THREE);
	is(servers('more'), '1:8081', 'its server is another one');
	ok(revision('more') >= 1, 'its revision does not go back');
	is(act('id=1&down=', 'more'), 200, 'and it can be controlled');
	act('id=1&up=', 'more');
}

# What an upstream is called counts, not how it is set up.
sub settings {
	my $servers = servers();

	reload(@THREE, { ZONE => 'renamed 128k' });
	is(servers(), $servers, 'another zone');
	reload(@THREE, { METHOD => 'least_conn;' });
	is(servers(), $servers, 'another method');
	is(upstream()->{method}, 'least_conn', 'which is in use');

	reload(@THREE, { HTTP => 'upstream_control_zone 32m;' });
	is(servers(), $servers, 'another size of our zone');
	is(act('server=127.0.0.1:8081&down='), 200, 'controlled there');
	is(servers(), $servers =~ s/8081/8081 down/r, 'in effect');
	reload(@THREE);
	is(servers(), $servers, 'without a size');
}

# Few lines tell of many servers.
sub many_lost {
	reload(map { "127.0.0.1:" . (8081 + $_) } 0 .. 9);
	act("peer=$_&weight=2") for 0 .. 9;
	my @lines = reload();
	is(scalar @lines, 9, 'eight of ten are named');
	is($lines[8], 'upstream "u": the reload dropped run-time changes of '
		. '2 more servers', 'the others are counted');
	act('peer=0&weight=2');
	is_deeply([ reload(@THREE, { METHOD => 'upstream_dynamic off;' }) ], [
		'upstream "u" cannot be changed any more, its run-time state is forgotten',
	], 'a static upstream loses them, too');
	reload(@THREE);
	act('peer=0&weight=2');
	is_deeply([ reload(@THREE, { HTTP => 'upstream_dynamic off;' }) ], [
		'upstream "u" server "127.0.0.1:8081": '
			. 'the reload dropped run-time changes: weight 2 -> 1',
	], 'and so do all that are');
	reload(@THREE);
}

# Reasons and records are replaced and dropped without end.
sub memory {
	my $got = burst(n => 1000, uri => sub ($i) {
		return '/control?upstream=u&peer=' . $i % 3 . '&down=&note='
			. substr $i . 'x' x 128, 0, 128;
	});
	is($got->{ok}, 1000, 'a thousand notes');

	# Each of these servers has a record of its own.
	for my $i (1 .. 12) {
		configure($THREE[0], map { '127.0.0.1:' . (1000 * $i + $_) } 1 .. 20);
		$t->reload();
	}
	reload();
	is_deeply([ upstream()->{dynamic}, scalar @{ upstream()->{peers} } ],
		[ JSON::PP::true, 21 ], 'twelve reloads with other servers');
	reload(@THREE);
}

# Nothing is lost while both happen at once.
sub under_way {
	my $load = $t->load(uri => '/other', seconds => 30, concurrency => 4);

	for my $round (1 .. 3) {
		act('server=127.0.0.1:8081&down=', 'other');
		is_deeply(burst(uri => '/other', n => 100)->{by_body}, { 8082 => 100 },
			"round $round: down");
		$t->reload();
		act('server=127.0.0.1:8082&down=', 'other');
		is_deeply(burst(uri => '/other', n => 100)->{by_body}, { 8081 => 100 },
			"round $round: the other one, after a reload");
		act('server=127.0.0.1:8082&up=', 'other');
	}

	is($load->finish(now => 1)->{failed}, 0, 'no request was lost');
	reload();
}

# A worker of the old configuration that has a change in hand makes it for the
# new one, too.
sub old_worker {
	my $form = 'upstream=other&server=127.0.0.1:' . port(8081) . '&down=';

	# The form is in the hands of the worker that has answered what was sent
	# before it in one piece; half of it, that is.
	my $h = http_start(uri => '/control?upstream=other&id=0', keepalive => 1,
		headers => { 'Content-Length' => undef },
		body => "POST /control HTTP/1.1\r\nHost: localhost\r\n"
			. "Content-Type: application/x-www-form-urlencoded\r\n"
			. 'Content-Length: ' . length($form) . "\r\nConnection: close\r\n"
			. "\r\n" . substr $form, 0, 10);
	$t->wait_for(sub { sysread $h->{over}, my $reply, 65_536 }, 5, 'a reply');

	$t->reload();
	is($t->old_workers(), 1, 'an old worker has the change');
	syswrite $h->{over}, substr $form, 10;
	is(http_finish($h)->status(), 200, 'which it makes');

	like(servers('other'), qr/8081 down/, 'the status shows it');
	is_deeply(burst(uri => '/other', n => 60)->{by_body}, { 8082 => 60 },
		'it is in effect');
	act('server=127.0.0.1:8081&up=', 'other');
	is(scalar keys %{ burst(uri => '/other', n => 60)->{by_body} }, 2,
		'and can be taken back');
	reload();
}

# A worker that dies takes nothing with it.
sub workers {
	act('server=127.0.0.1:8081&down=', 'other');
	my ($servers, $revision) = (servers('other'), revision('other'));

	$t->kill_worker() for 1 .. 2;
	is(servers('other') . ' ' . revision('other'), "$servers $revision",
		'new workers know what was changed');
	is_deeply(burst(uri => '/other', n => 60)->{by_body}, { 8082 => 60 },
		'it is in effect');
	act('server=127.0.0.1:8081&up=', 'other');
}
