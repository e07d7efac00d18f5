#!/usr/bin/env perl

# Tests for the warnings of the configuration: what is likely not as somebody
# meant it is said by "nginx -t", once, with its place; and what is right is
# not warned of.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()
	->has(qw/module http proxy upstream_zone rewrite access auth_basic unix/);

my $CONF = <<'CONF';
%%TEST_GLOBALS%%
events { }
http {
    %%TEST_GLOBALS_HTTP%%
    %%HTTP%%

    upstream u {
        %%ZONE%%
        %%UPSTREAM%%
        server 127.0.0.1:8081;
    }

    server {
        listen %%LISTEN%%;
        %%SERVER%%

        location / {
            %%LOCATION%%
        }
    }
}
CONF

my $OPEN = qr/"upstream_control" is open to everybody: restrict it by "allow" and "deny", "auth_basic", or a "listen" on 127\.0\.0\.1/;
my $TAKES = qr/another directive of this location is without effect: this one takes it/;
my $TAKEN = qr/"upstream_control" is without effect: a later directive of the location took it/;
my $NOTHING = qr/"upstream_control" has nothing to change: no upstream has a "zone"/;
my $GUARD = qr/upstream "u" has (?:1 usable server|2 usable servers), and "upstream_guard min=5": none can be taken away without "force="/;

my $ANY = '8080';
my $NO_LISTEN = '127.0.0.1:8080; listen unix:%%TESTDIR%%/control.sock; listen [::1]:8080';
my $DENY = 'allow 192.0.2.1; deny all;';

# what the holes have, and the warning with the directive in whose line it is;
# without one there is none
my @rows = (
	# open to everybody
	[ { }, $OPEN, 'upstream_control;' ],
	[ { LOCATION => 'upstream_conf;' }, $OPEN, 'upstream_conf;' ],
	[ { LISTEN => '127.0.0.1:8080; listen 8082' }, $OPEN, 'upstream_control;' ],
	[ { LISTEN => '[::]:8080' }, $OPEN, 'upstream_control;' ],
	[ { LISTEN => $NO_LISTEN } ],
	[ { LOCATION => "upstream_control; $DENY" } ],
	[ { LOCATION => 'upstream_control; deny 192.0.2.0/24;' } ],
	[ { SERVER => $DENY } ],
	[ { HTTP => $DENY } ],
	[ { LOCATION => 'upstream_control; auth_basic realm; auth_basic_user_file f;' } ],
	[ { SERVER => 'auth_basic realm; auth_basic_user_file f;' } ],
	[ { SERVER => 'auth_basic realm;', LOCATION => 'upstream_control; auth_basic off;' },
		$OPEN, 'upstream_control;' ],
	[ { LOCATION => 'upstream_control; internal;' } ],
	[ { LOCATION => "if (\$arg_secret != x) { return 403; }\nupstream_control;" } ],
	[ { SERVER => 'if ($arg_secret != x) { return 403; }' } ],
	[ { LOCATION => "upstream_control methods=POST;\nlimit_except GET { $DENY }" } ],
	[ { LOCATION => "upstream_control;\nlimit_except GET { $DENY }" },
		$OPEN, 'upstream_control;' ],
	[ { LOCATION => 'upstream_status;' } ],

	# two content handlers
	[ { LISTEN => '127.0.0.1:8080', LOCATION => "proxy_pass http://u;\nupstream_control;" },
		$TAKES, 'upstream_control;' ],
	[ { LISTEN => '127.0.0.1:8080', LOCATION => "proxy_pass http://u;\nupstream_status;" },
		$TAKES, 'upstream_status;' ],
	[ { LISTEN => '127.0.0.1:8080', LOCATION => "upstream_control;\nproxy_pass http://u;" },
		$TAKEN, 'upstream_control;' ],
	[ { LISTEN => '127.0.0.1:8080', LOCATION => "upstream_control;\nif (\$arg_a) { proxy_pass http://u; }" } ],

	# a guard that nothing passes
	[ { UPSTREAM => 'upstream_guard min=5;', LISTEN => '127.0.0.1:8080' },
		$GUARD, 'upstream u {' ],
	[ { HTTP => 'upstream_guard min=5;', LISTEN => '127.0.0.1:8080',
		UPSTREAM => 'server 127.0.0.1:8082; server 127.0.0.1:8083 down;' },
		$GUARD, 'upstream u {' ],
	[ { UPSTREAM => 'upstream_guard min=1;', LISTEN => '127.0.0.1:8080' } ],
	[ { UPSTREAM => 'upstream_guard min=100%;', LISTEN => '127.0.0.1:8080' } ],
	[ { UPSTREAM => 'upstream_guard min=5; upstream_dynamic off;',
		LISTEN => '127.0.0.1:8080' } ],

	# nothing to change
	[ { ZONE => '', LISTEN => '127.0.0.1:8080' }, $NOTHING, 'upstream_control;' ],
	[ { ZONE => 'upstream_auto_zone 64k;', LISTEN => '127.0.0.1:8080' } ],
	[ { ZONE => '', LISTEN => '127.0.0.1:8080', LOCATION => 'upstream_status;' } ],
);

push @rows, [ { LOCATION => "upstream_control;\nauth_request /auth;" } ],
	[ { SERVER => 'auth_request /auth;', LOCATION => "upstream_control;\nauth_request off;" },
		$OPEN, 'upstream_control;' ]
	if $t->has_module_built('auth_request');

$t->plan(2 * @rows + 2);

for my $row (@rows) {
	my ($holes, $warning, $where) = @$row;
	my %holes = (HTTP => '', ZONE => 'zone u 64k;', UPSTREAM => '',
		LISTEN => $ANY, SERVER => '', LOCATION => 'upstream_control;',
		%$holes);
	my $name = join ' ', map { "$_: $holes->{$_}" } sort keys %$holes;

	my ($code, $out) = $t->test_config($CONF, %holes);
	my ($file) = $out =~ /configuration file (\S+)/;
	my @lines = $out =~ /\[warn\] \d*#?\d*:? ?(.*)/g;

	is($code, 0, "$name: nginx takes it") or diag($out);
	if (!$warning) {
		is_deeply(\@lines, [], "$name: no warning");
		next;
	}

	my $line = line_of($file, $where);
	is(scalar(@lines) . " $lines[0]" =~ s/ in \Q$file\E:$line\z/ in place/r
		=~ s/$warning/the warning/r, '1 the warning in place',
		"$name: a warning");
}

# Each once, also where several locations have the same.
{
	my ($code, $out) = $t->test_config($CONF, HTTP => '', ZONE => '',
		UPSTREAM => '', SERVER => '', LISTEN => $ANY, LOCATION =>
		"upstream_control;\nlocation /a { upstream_control; if (\$arg_a) { set \$a 1; } }");
	is(() = $out =~ /open to everybody/g, 1, 'one of the locations is open');
	is(() = $out =~ /nothing to change/g, 1, 'said once');
}

sub line_of ($file, $text) {
	open my $fh, '<', $file or die "$file: $!\n";
	while (my $line = <$fh>) {
		return $. if index($line, $text) >= 0;
	}
	return 0;
}
